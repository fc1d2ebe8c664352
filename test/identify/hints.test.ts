import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import { hintOf, loadIsbot } from '../../src/identify/hints.ts'

const chrome =
  'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36'

/** As they are sent. Asked about before isbot is loaded, and after. */
const known: [userAgent: string, agent: string, operator: string | undefined, role: string][] = [
  [
    'Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)',
    'GPTBot',
    'OpenAI',
    'crawler',
  ],
  [
    'Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko); compatible; ChatGPT-User/1.0; +https://openai.com/bot',
    'ChatGPT-User',
    'OpenAI',
    'assistant',
  ],
  [`${chrome}; compatible; OAI-SearchBot/1.0; +https://openai.com/searchbot`, 'OAI-SearchBot', 'OpenAI', 'search'],
  [
    'Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; ClaudeBot/1.0; +claudebot@anthropic.com)',
    'ClaudeBot',
    'Anthropic',
    'crawler',
  ],
  ['Claude-User (claude-code/2.1.0; +https://support.anthropic.com/)', 'Claude-User', 'Anthropic', 'assistant'],
  ['Claude-SearchBot/1.0', 'Claude-SearchBot', 'Anthropic', 'search'],
  ['claude-code/1.0.31', 'Claude-Code', 'Anthropic', 'assistant'],
  [
    'Mozilla/5.0 (compatible; PerplexityBot/1.0; +https://perplexity.ai/perplexitybot)',
    'PerplexityBot',
    'Perplexity',
    'search',
  ],
  ['Mozilla/5.0 (compatible; Perplexity-User/1.0)', 'Perplexity-User', 'Perplexity', 'assistant'],
  ['Google-Extended', 'Google-Extended', 'Google', 'crawler'],
  [
    `${chrome}; Gemini-Deep-Research; +https://gemini.google/overview/deep-research/`,
    'Gemini-Deep-Research',
    'Google',
    'assistant',
  ],
  [
    'Mozilla/5.0 (Linux; Android 5.0) (compatible; Bytespider; spider-feedback@bytedance.com)',
    'Bytespider',
    'ByteDance',
    'crawler',
  ],
  [
    'Mozilla/5.0 (compatible; Amazonbot/0.1; +https://developer.amazon.com/support/amazonbot)',
    'Amazonbot',
    'Amazon',
    'crawler',
  ],
  ['Applebot-Extended/0.1', 'Applebot-Extended', 'Apple', 'crawler'],
  [
    'meta-externalagent/1.1 (+https://developers.facebook.com/docs/sharing/webmasters/crawler)',
    'meta-externalagent',
    'Meta',
    'crawler',
  ],
  ['cohere-ai', 'cohere-ai', 'Cohere', 'assistant'],
  [
    'Mozilla/5.0 (compatible; MistralAI-User/1.0; +https://docs.mistral.ai/robots)',
    'MistralAI-User',
    'Mistral AI',
    'assistant',
  ],
  ['DuckAssistBot/1.2; (+http://duckduckgo.com/duckassistbot.html)', 'DuckAssistBot', 'DuckDuckGo', 'assistant'],
  ['CCBot/2.0 (https://commoncrawl.org/faq/)', 'CCBot', 'Common Crawl', 'crawler'],
  ['Mozilla/5.0 (compatible; Diffbot/0.1; +http://www.diffbot.com)', 'Diffbot', 'Diffbot', 'crawler'],
  [
    'ModelContextProtocol/1.0 (Autonomous; +https://github.com/modelcontextprotocol/servers)',
    'ModelContextProtocol',
    undefined,
    'assistant',
  ],
  ['OpenAI/Python 1.54.3', 'OpenAI', undefined, 'http-client'],
  ['AsyncOpenAI/Python 1.54.3', 'AsyncOpenAI', undefined, 'http-client'],
  ['OpenAI/JS 4.71.1', 'OpenAI', undefined, 'http-client'],
  ['Anthropic/JS 0.32.1', 'Anthropic', undefined, 'http-client'],
  ['DefaultLangchainUserAgent', 'DefaultLangchainUserAgent', undefined, 'http-client'],
  ['langchain/0.3', 'LangChain', undefined, 'http-client'],
  ['python-requests/2.32.3', 'python-requests', undefined, 'http-client'],
  ['python-httpx/0.27.2', 'python-httpx', undefined, 'http-client'],
  ['Python/3.12 aiohttp/3.10.5', 'aiohttp', undefined, 'http-client'],
  ['Python-urllib/3.12', 'python-urllib', undefined, 'http-client'],
  ['axios/1.7.7', 'axios', undefined, 'http-client'],
  ['node-fetch/1.0 (+https://github.com/bitinn/node-fetch)', 'node-fetch', undefined, 'http-client'],
  ['undici', 'undici', undefined, 'http-client'],
  ['node', 'node', undefined, 'http-client'],
  ['got (https://github.com/sindresorhus/got)', 'got', undefined, 'http-client'],
  ['Go-http-client/2.0', 'Go-http-client', undefined, 'http-client'],
  ['curl/8.5.0', 'curl', undefined, 'http-client'],
  ['Wget/1.21.4', 'Wget', undefined, 'http-client'],
  ['okhttp/4.12.0', 'okhttp', undefined, 'http-client'],
  ['Java/21.0.2', 'Java', undefined, 'http-client'],
  ['Apache-HttpClient/4.5.14 (Java/17.0.9)', 'Apache-HttpClient', undefined, 'http-client'],
  ['libwww-perl/6.68', 'libwww-perl', undefined, 'http-client'],
  ['Ruby', 'Ruby', undefined, 'http-client'],
  ['PostmanRuntime/7.42.0', 'PostmanRuntime', undefined, 'http-client'],
  ['Dart/3.5 (dart:io)', 'Dart', undefined, 'http-client'],
  [
    'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/131.0 Safari/537.36',
    'HeadlessChrome',
    undefined,
    'bot',
  ],
  ['Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)', 'Googlebot', undefined, 'bot'],
  ['AcmePriceSpider/3', 'AcmePriceSpider', undefined, 'bot'],
]

const people: string[] = [
  chrome,
  'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Safari/605.1.15',
  'Mozilla/5.0 (iPhone; CPU iPhone OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Mobile/15E148 Safari/604.1',
  'Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0',
  'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36 Edg/130.0.0.0',
  'Mozilla/5.0 (Linux; Android 7.1.1; Gemini PDA) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/119.0.0.0 Mobile Safari/537.36',
  'Mozilla/5.0 (Linux; Android 6.0; Lenovo K6 Build/K6) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/119.0.0.0 Mobile Safari/537.36',
  'Mozilla/5.0 (Linux; Android 9; CUBOT X18) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/119.0.0.0 Mobile Safari/537.36',
  'Opera/9.80 (J2ME/MIDP; Opera Mini/9; U; en) Presto/2.8.119 Version/11.10',
]

const near: string[] = [
  'NotGPTBotX/1.0',
  'curly/1.0',
  'MyClaudeUser/1',
  'Mozilla/5.0 rubynode',
  'xaxios/1',
  'GPTBots/1.0',
]

describe('what a User-Agent claims', () => {
  it.each(known)('%s', (userAgent, agent, operator, role) => {
    expect(hintOf(userAgent)).toEqual({ agent, role, ...(operator !== undefined && { operator }) })
    expect(hintOf(userAgent.toUpperCase())?.agent.toLowerCase()).toBe(agent.toLowerCase())
  })

  it.each(people)('nothing: %s', (userAgent) => {
    expect(hintOf(userAgent)).toBeNull()
  })

  it.each(near)('a name is a whole word: %s', (userAgent) => {
    expect(hintOf(userAgent)).toBeNull()
  })

  it('of none is none', () => {
    expect(hintOf(undefined)).toBeNull()
    expect(hintOf('')).toBeNull()
  })

  it('an agent is named before the library it uses', () => {
    expect(hintOf('python-requests/2.32 PerplexityBot/1.0')?.agent).toBe('PerplexityBot')
    expect(hintOf('curl/8 AcmeBot/1.0')?.agent).toBe('curl')
  })

  it('is looked for in the first 512 characters', () => {
    expect(hintOf(`${'x '.repeat(250)}GPTBot/1.0`)?.agent).toBe('GPTBot')
    expect(hintOf(`${'x '.repeat(260)}GPTBot/1.0`)).toBeNull()
  })

  it('that names itself is cut to a length fit for a log, and has no control characters', () => {
    expect(hintOf(`${'a'.repeat(300)}Bot/1.0`)?.agent).toHaveLength(64)
    expect(hintOf('evil\r\nbot/1.0')?.agent).toBe('bot')
  })

  it('is the same when asked again, also after many others', () => {
    const first = hintOf('GPTBot/1.2')
    for (let index = 0; index < 5000; index += 1) expect(hintOf(`Client-${index}/1.0`)).toBeNull()
    expect(hintOf('GPTBot/1.2')).toEqual(first)
  })
})

describe('any text', () => {
  it('has an answer that is well formed', () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.string({ unit: 'binary', maxLength: 2000 }), fc.string({ maxLength: 2000 })),
        (userAgent) => {
          const hint = hintOf(userAgent)
          if (hint === null) return
          expect(hint.agent).toMatch(/^[\w.-]{1,64}$/)
          expect(['assistant', 'crawler', 'search', 'http-client', 'bot']).toContain(hint.role)
        },
      ),
      { numRuns: 2000 },
    )
  })

  it('is not read beyond its first 512 characters, whatever is repeated', async () => {
    await loadIsbot()
    const pieces = [
      'a',
      'a.',
      '.',
      '-',
      '_.',
      'bot',
      'bo',
      'cu bot',
      'gpt',
      'GPTBot-',
      ' ',
      '/',
      '+http',
      'google',
      '(',
      '\u0000',
      'é',
      '\ud800',
    ]
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(...pieces), { minLength: 1, maxLength: 6 }),
        fc.constantFrom('', '!', ' bot', '\n'),
        (cycle, end) => {
          const unit = cycle.join('')
          const userAgent = unit.repeat(Math.ceil(100_000 / unit.length)) + end
          expect(hintOf(userAgent)).toEqual(hintOf(userAgent.slice(0, 512)))
        },
      ),
      { numRuns: 500 },
    )
  })
})

describe('with isbot', () => {
  it('what only it knows becomes a bot, also when it was asked about before', async () => {
    // Our tables do not know it, and isbot does, by the address in it.
    const onlyIsbot = 'Mozilla/5.0 (compatible; Acme Thing; +https://acme.example/about)'
    const { isbot } = await import('isbot')
    expect(isbot(onlyIsbot)).toBe(true)

    vi.resetModules()
    const fresh = await import('../../src/identify/hints.ts')
    expect(fresh.hintOf(onlyIsbot)).toBeNull()
    await fresh.loadIsbot()
    expect(fresh.hintOf(onlyIsbot)).toEqual({ agent: 'bot', role: 'bot' })
  })

  it('changes nothing about what the tables know, nor about people', async () => {
    await loadIsbot()
    for (const [userAgent, agent] of known) expect(hintOf(userAgent)?.agent).toBe(agent)
    for (const userAgent of people) expect(hintOf(userAgent)).toBeNull()
  })
})
