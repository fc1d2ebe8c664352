import type { Calendar } from '../policy.ts'
import type { CalendarLimit, Limit } from './algorithm.ts'

const dayMs = 86_400_000

const weekMs = 7 * dayMs

/** 1970 began on a Thursday: weeks begin on the Monday before. */
const mondayMs = -3 * dayMs

/** The longest that a refused client is told to come later than the window ends, in ms. */
const longestSpreadMs = 5 * 60_000

/** Windows of equal length from midnight UTC; whole weeks from Monday. */
export function alignedTo(windowMs: number): Calendar {
  return { originMs: windowMs % weekMs === 0 ? mondayMs : 0, monthDay: 0 }
}

/** Calendar months that begin on `day`, or on the last day of a shorter month. */
export function monthsFrom(day: number): Calendar {
  return { originMs: 0, monthDay: day }
}

/**
 * A calendar as arithmetic.
 *
 * @param place from 0 to 1, a client's among those who come back: it is told that part of the spread
 */
export function calendarLimit({ originMs, monthDay }: Calendar, windowMs: number, place: number): CalendarLimit {
  return {
    spreadUs: Math.floor(Math.min(windowMs / 100, longestSpreadMs) * place * 1000),
    originUs: originMs * 1000,
    monthDay,
  }
}

/** The window that a moment lies in, in µs. Without a calendar, the one that begins with it. */
export function windowAt({ windowUs, calendar }: Limit, time: number): { start: number; end: number } {
  if (calendar === undefined) return { start: time, end: time + windowUs }
  const { originUs, monthDay } = calendar
  if (monthDay > 0) {
    const date = new Date(time / 1000)
    let month = date.getUTCFullYear() * 12 + date.getUTCMonth()
    if (monthStartUs(month, monthDay) > time) month -= 1
    return { start: monthStartUs(month, monthDay), end: monthStartUs(month + 1, monthDay) }
  }
  const start = originUs + Math.floor((time - originUs) / windowUs) * windowUs
  return { start, end: start + windowUs }
}

/** @param month counted from year 0 */
function monthStartUs(month: number, day: number): number {
  const year = Math.floor(month / 12)
  const lastDay = new Date(Date.UTC(year, (month % 12) + 1, 0)).getUTCDate()
  return Date.UTC(year, month % 12, Math.min(day, lastDay)) * 1000
}
