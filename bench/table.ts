/** A column: its title, whether it is words, and what stands in it. */
export interface Column<Row> {
  readonly title: string
  readonly words?: boolean
  readonly cell: (row: Row) => string
}

/** A Markdown table that also reads well as it is: columns as wide as what is in them, numbers to the right. */
export function table<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): string {
  const cells = rows.map((row) => columns.map(({ cell }) => cell(row)))
  const widths = columns.map(({ title }, index) => Math.max(title.length, 3, ...cells.map((row) => row[index]!.length)))
  const line = (row: readonly string[]): string =>
    `| ${row.map((text, index) => (columns[index]!.words ? text.padEnd(widths[index]!) : text.padStart(widths[index]!))).join(' | ')} |`
  const rule = widths.map((width, index) => (columns[index]!.words ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`))
  return [line(columns.map(({ title }) => title)), line(rule), ...cells.map(line)].join('\n')
}

/** A whole number with its thousands apart. */
export function grouped(value: number): string {
  return Math.round(value)
    .toString()
    .replace(/\B(?=(?:\d{3})+$)/g, ' ')
}
