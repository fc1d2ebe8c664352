import { STATUS_CODES } from 'node:http'
import type { Problem } from './problem.ts'

/** A refusal as plain text. */
export function textOf(problem: Problem): string {
  const facts = factsOf(problem).map(({ label, value }) => `${label}: ${value}\n`)
  return `${headingOf(problem)}\n\n${problem.detail}\n${facts.length > 0 ? '\n' : ''}${facts.join('')}`
}

/** A refusal as a page that search engines leave alone. */
export function htmlOf(problem: Problem): string {
  const heading = escapeHtml(headingOf(problem))
  const facts = factsOf(problem).map(({ label, value, link }) => {
    const text = escapeHtml(value)
    return `<li>${escapeHtml(label)}: ${link === true ? `<a href="${text}">${text}</a>` : text}</li>\n`
  })
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="robots" content="noindex">
<title>${heading}</title>
</head>
<body>
<h1>${heading}</h1>
<p>${escapeHtml(problem.detail)}</p>
${facts.length > 0 ? `<ul>\n${facts.join('')}</ul>\n` : ''}</body>
</html>
`
}

interface Fact {
  readonly label: string
  readonly value: string
  readonly link?: true
}

function headingOf({ status }: Problem): string {
  return `${status} ${STATUS_CODES[status]}`
}

function factsOf({ error, 'violated-policies': violated, retry_estimated: estimated }: Problem): Fact[] {
  const facts: Fact[] = []
  if (error.retry_after !== undefined) {
    facts.push({ label: 'Try again in', value: `${estimated === true ? 'about ' : ''}${error.retry_after} s` })
  }
  facts.push({ label: 'Tier', value: error.tier })
  if (violated !== undefined) facts.push({ label: 'Limits reached', value: violated.join(', ') })
  if (error.remaining !== undefined) facts.push({ label: 'Left', value: `${error.remaining} of ${error.limit}` })
  if (error.reset_at !== undefined) facts.push({ label: 'All of it is free again at', value: error.reset_at })
  if (error.docs_url !== undefined) facts.push({ label: 'About these limits', value: error.docs_url, link: true })
  if (error.upgrade_url !== undefined) facts.push({ label: 'Higher limits', value: error.upgrade_url, link: true })
  return facts
}

const entities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => entities[character]!)
}
