const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']
const month = `(${months.join('|')})`
const time = String.raw`(\d{2}):(\d{2}):(\d{2})`

const fixed = new RegExp(String.raw`^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d{2}) ${month} (\d{4}) ${time} GMT$`)
const rfc850 = new RegExp(
  String.raw`^(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (\d{2})-${month}-(\d{2}) ${time} GMT$`,
)
const asctime = new RegExp(String.raw`^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) ${month} ([ \d]\d) ${time} (\d{4})$`)

/**
 * Reads an HTTP-date in any of its three forms. (`Date.parse` takes the third one for local time, and much else for a date.)
 *
 * @returns Unix time in ms, or null
 * @see [RFC 9110 section 5.6.7](https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7)
 */
export function parseHttpDate(text: string, nowMs: number): number | null {
  let match = fixed.exec(text)
  if (match) return utc(match[3]!, match[2]!, match[1]!, match.slice(4))
  match = rfc850.exec(text)
  if (match) return utc(String(century(Number(match[3]), nowMs)), match[2]!, match[1]!, match.slice(4))
  match = asctime.exec(text)
  if (match) return utc(match[6]!, match[1]!, match[2]!, match.slice(3, 6))
  return null
}

/** A year of two digits that seems more than 50 years ahead is the last one that ended so. */
function century(twoDigits: number, nowMs: number): number {
  const now = new Date(nowMs).getUTCFullYear()
  const year = now - (now % 100) + twoDigits
  return year > now + 50 ? year - 100 : year
}

function utc(year: string, monthName: string, day: string, [hours, minutes, seconds]: string[]): number | null {
  if (Number(hours) > 23 || Number(minutes) > 59 || Number(seconds) > 60) return null
  const date = new Date(Date.UTC(Number(year), months.indexOf(monthName), Number(day)))
  if (date.getUTCDate() !== Number(day)) return null
  return date.getTime() + ((Number(hours) * 60 + Number(minutes)) * 60 + Number(seconds)) * 1000
}
