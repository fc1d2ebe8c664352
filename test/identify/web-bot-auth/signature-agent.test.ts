import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readDirectoryUrl } from '../../../src/identify/web-bot-auth/signature-agent.ts'

const wellKnown = '/.well-known/http-message-signatures-directory'

describe('readDirectoryUrl', () => {
  it.each([
    ['https://bot.example', `https://bot.example${wellKnown}`],
    ['https://bot.example/', `https://bot.example${wellKnown}`],
    ['https://bot.example?', `https://bot.example${wellKnown}`],
    ['HTTPS://BOT.Example:443', `https://bot.example${wellKnown}`],
    ['https://bot.example:8443', `https://bot.example:8443${wellKnown}`],
    [`https://bot.example${wellKnown}`, `https://bot.example${wellKnown}`],
    ['https://bot.example/keys', 'https://bot.example/keys'],
    ['https://bot.example/a/./b/../keys', 'https://bot.example/a/keys'],
    ['https://bot.example/%6beys%2f', 'https://bot.example/keys%2F'],
    ['https://bot.example/%7Ebot', 'https://bot.example/~bot'],
  ])('%s is known as %s', (value, id) => {
    expect(readDirectoryUrl(value)).toEqual({ id, url: id })
  })

  it.each([
    ['https://bot.example/keys?v=2', 'https://bot.example/keys', 'https://bot.example/keys?v=2'],
    ['https://bot.example/?v=2', 'https://bot.example/', 'https://bot.example/?v=2'],
  ])('%s is known without its query, and fetched with it', (value, id, url) => {
    expect(readDirectoryUrl(value)).toEqual({ id, url })
  })

  it.each([
    'http://bot.example',
    '//bot.example',
    'bot.example',
    'https:bot.example',
    'https:///keys',
    'https://user@bot.example',
    'https://user:word@bot.example/keys',
    'https://@bot.example',
    'https://bot.example/keys#1',
    'https://bot.example/#',
    'https://bot.example\\keys',
    'https://bot.example/ke ys',
    'https://bot.example/k\u00e9ys',
    'https://[::1',
    `https://bot.example/${'a'.repeat(900)}`,
    'data:application/json,{}',
    'file:///etc/passwd',
    '',
    undefined,
    null,
    7,
    [],
    new ArrayBuffer(1),
  ])('%s is no directory', (value) => {
    expect(readDirectoryUrl(value)).toBeUndefined()
  })

  it('reads what it made as the same, and never throws', () => {
    fc.assert(
      fc.property(fc.oneof(fc.webUrl({ validSchemes: ['https'], withQueryParameters: true }), fc.string()), (value) => {
        const read = readDirectoryUrl(value)
        if (read === undefined) return
        expect(read.id.length).toBeLessThanOrEqual(1000)
        expect(readDirectoryUrl(read.url)).toEqual(read)
      }),
    )
  })
})
