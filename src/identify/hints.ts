import { LRUCache } from 'lru-cache'
import type { AgentHint } from '../client.ts'

/**
 * AI agents by the name in their User-Agent. Google-Extended and Applebot-Extended are meant for robots.txt, and their owners
 * send no request under these names; whoever does claims to be them all the same.
 */
const agents: readonly (readonly [agent: string, operator: string, role: AgentHint['role']])[] = [
  ['GPTBot', 'OpenAI', 'crawler'],
  ['ChatGPT-User', 'OpenAI', 'assistant'],
  ['OAI-SearchBot', 'OpenAI', 'search'],
  ['OAI-AdsBot', 'OpenAI', 'bot'],
  ['ClaudeBot', 'Anthropic', 'crawler'],
  ['Claude-User', 'Anthropic', 'assistant'],
  ['Claude-SearchBot', 'Anthropic', 'search'],
  ['Claude-Web', 'Anthropic', 'assistant'],
  ['Claude-Code', 'Anthropic', 'assistant'],
  ['anthropic-ai', 'Anthropic', 'crawler'],
  ['PerplexityBot', 'Perplexity', 'search'],
  ['Perplexity-User', 'Perplexity', 'assistant'],
  ['Google-Extended', 'Google', 'crawler'],
  ['Google-Agent', 'Google', 'assistant'],
  ['GoogleAgent-Mariner', 'Google', 'assistant'],
  ['Google-NotebookLM', 'Google', 'assistant'],
  ['Google-CloudVertexBot', 'Google', 'crawler'],
  ['Google-Gemini-CLI', 'Google', 'assistant'],
  ['Gemini-Deep-Research', 'Google', 'assistant'],
  ['GeminiCLI', 'Google', 'assistant'],
  ['GoogleOther', 'Google', 'crawler'],
  ['Bytespider', 'ByteDance', 'crawler'],
  ['TikTokSpider', 'ByteDance', 'crawler'],
  ['Amazonbot', 'Amazon', 'crawler'],
  ['Amzn-SearchBot', 'Amazon', 'search'],
  ['Amzn-User', 'Amazon', 'assistant'],
  ['AmazonBuyForMe', 'Amazon', 'assistant'],
  ['bedrockbot', 'Amazon', 'crawler'],
  ['NovaAct', 'Amazon', 'assistant'],
  ['Applebot', 'Apple', 'search'],
  ['Applebot-Extended', 'Apple', 'crawler'],
  ['meta-externalagent', 'Meta', 'crawler'],
  ['meta-externalfetcher', 'Meta', 'assistant'],
  ['meta-webindexer', 'Meta', 'search'],
  ['FacebookBot', 'Meta', 'crawler'],
  ['cohere-ai', 'Cohere', 'assistant'],
  ['cohere-training-data-crawler', 'Cohere', 'crawler'],
  ['MistralAI-User', 'Mistral AI', 'assistant'],
  ['MistralBot', 'Mistral AI', 'crawler'],
  ['DeepSeekBot', 'DeepSeek', 'crawler'],
  ['xAI-Bot', 'xAI', 'crawler'],
  ['GrokBot', 'xAI', 'crawler'],
  ['DuckAssistBot', 'DuckDuckGo', 'assistant'],
  ['YouBot', 'You.com', 'search'],
  ['PhindBot', 'Phind', 'search'],
  ['kagi-fetcher', 'Kagi', 'assistant'],
  ['PetalBot', 'Huawei', 'search'],
  ['PanguBot', 'Huawei', 'crawler'],
  ['AzureAI-SearchBot', 'Microsoft', 'search'],
  ['CCBot', 'Common Crawl', 'crawler'],
  ['Diffbot', 'Diffbot', 'crawler'],
  ['AI2Bot', 'Ai2', 'crawler'],
  ['omgili', 'Webz.io', 'crawler'],
  ['Timpibot', 'Timpi', 'crawler'],
  ['ImagesiftBot', 'ImageSift', 'crawler'],
  ['img2dataset', 'img2dataset', 'crawler'],
  ['FirecrawlAgent', 'Firecrawl', 'crawler'],
  ['TavilyBot', 'Tavily', 'assistant'],
  ['ExaBot', 'Exa', 'search'],
  ['LinkupBot', 'Linkup', 'search'],
  ['ShapBot', 'Parallel', 'crawler'],
  ['Shap-User', 'Parallel', 'assistant'],
  ['Manus-User', 'Manus', 'assistant'],
  ['Devin', 'Cognition', 'assistant'],
]

/** Tools that people and companies build agents with: the name tells the tool, not who runs it. */
const agentTools: readonly (readonly [agent: string, role: AgentHint['role']])[] = [
  ['ModelContextProtocol', 'assistant'],
  ['mcp-remote', 'assistant'],
  ['opencode', 'assistant'],
  ['Crawl4AI', 'crawler'],
  ['LangChain', 'http-client'],
  ['LangChainJS', 'http-client'],
  ['DefaultLangchainUserAgent', 'http-client'],
  ['LlamaIndex', 'http-client'],
  ['OpenAI', 'http-client'],
  ['AsyncOpenAI', 'http-client'],
  ['AzureOpenAI', 'http-client'],
  ['AsyncAzureOpenAI', 'http-client'],
  ['openai-node', 'http-client'],
  ['openai-python', 'http-client'],
  ['Anthropic', 'http-client'],
  ['AsyncAnthropic', 'http-client'],
  ['anthropic-sdk-python', 'http-client'],
  ['anthropic-sdk-typescript', 'http-client'],
  ['google-genai-sdk', 'http-client'],
  ['huggingface_hub', 'http-client'],
  ['ai-sdk', 'http-client'],
]

/** HTTP libraries and command-line tools, wherever the name stands: `Python/3.12 aiohttp/3.9.1`. */
const httpClients: readonly string[] = [
  'python-requests',
  'python-httpx',
  'python-urllib',
  'python-urllib3',
  'urllib3',
  'aiohttp',
  'pycurl',
  'axios',
  'node-fetch',
  'undici',
  'node-superagent',
  'Go-http-client',
  'go-resty',
  'fasthttp',
  'curl',
  'libcurl',
  'Wget',
  'Wget2',
  'HTTPie',
  'okhttp',
  'Apache-HttpClient',
  'Apache-HttpAsyncClient',
  'Java-http-client',
  'ReactorNetty',
  'ktor-client',
  'akka-http',
  'pekko-http',
  'libwww-perl',
  'LWP',
  'GuzzleHttp',
  'http.rb',
  'rest-client',
  'Faraday',
  'Typhoeus',
  'Mechanize',
  'reqwest',
  'ureq',
  'RestSharp',
  'PostmanRuntime',
  'bruno-runtime',
  'autocannon',
]

/** Names that are also words, of devices and plugins among others: believed only where they open the User-Agent. */
const openingClients: readonly string[] = [
  'node',
  'got',
  'ky',
  'Java',
  'Ruby',
  'Dart',
  'Deno',
  'Bun',
  'PHP',
  'Python',
  'httpx',
  'xh',
  'hyper',
  'insomnia',
  'k6',
  'rampmeter',
]

/** Browsers and crawlers that a program drives. */
const automation: readonly string[] = [
  'HeadlessChrome',
  'Puppeteer',
  'Playwright',
  'PhantomJS',
  'Selenium',
  'Scrapy',
  'colly',
  'Chrome-Lighthouse',
]

const agentHints = new Map<string, AgentHint>([
  ...agents.map(([agent, operator, role]) => [agent.toLowerCase(), Object.freeze({ agent, operator, role })] as const),
  ...agentTools.map(([agent, role]) => [agent.toLowerCase(), Object.freeze({ agent, role })] as const),
])
const clientHints = hintsOf(httpClients, 'http-client')
const openingHints = hintsOf(openingClients, 'http-client')
const automationHints = hintsOf(automation, 'bot')

function hintsOf(names: readonly string[], role: AgentHint['role']): Map<string, AgentHint> {
  return new Map(names.map((agent) => [agent.toLowerCase(), Object.freeze({ agent, role })]))
}

/**
 * Words of a User-Agent: the name before a slash, a domain as one. A word begins where one can, so `NotGPTBot` names no GPTBot,
 * and no two parts of the pattern match the same character, so it is linear.
 */
const words = /[a-z0-9_-]+(?:\.[a-z0-9_-]+)*/gi

/** What programs call themselves that the tables do not know. Cubot makes telephones. */
const programName = /(?:bot|crawler|spider|scraper)$/i
const noProgram = /^cubot/i

/** Agents name themselves early; what a longer text says further on is not looked at. */
const longestRead = 512

/** At most 512 characters each, so a megabyte or two. */
const remembered = new LRUCache<string, { readonly hint: AgentHint | null }>({ max: 2000 })

/**
 * What a User-Agent claims to be, or null for a browser and for none at all. Unproven: anybody can send anything.
 */
export function hintOf(userAgent: string | undefined): AgentHint | null {
  if (userAgent === undefined || userAgent === '') return null
  // Too long to keep, and the cut text would keep the whole one in memory.
  if (userAgent.length > longestRead) return readHint(userAgent.slice(0, longestRead))
  const known = remembered.get(userAgent)
  if (known !== undefined) return known.hint
  const hint = readHint(userAgent)
  remembered.set(userAgent, { hint })
  return hint
}

function readHint(userAgent: string): AgentHint | null {
  const named = userAgent.match(words) ?? []
  const names = named.map((name) => name.toLowerCase())
  return (
    firstOf(names, agentHints) ??
    firstOf(names, automationHints) ??
    firstOf(names, clientHints) ??
    openingHints.get(names[0] ?? '') ??
    selfNamed(named) ??
    (isbot?.(userAgent) === true ? unnamedBot : null)
  )
}

function firstOf(names: readonly string[], table: ReadonlyMap<string, AgentHint>): AgentHint | undefined {
  for (const name of names) {
    const hint = table.get(name)
    if (hint !== undefined) return hint
  }
  return undefined
}

function selfNamed(named: readonly string[]): AgentHint | undefined {
  const agent = named.find((name) => programName.test(name) && !noProgram.test(name))
  return agent === undefined ? undefined : { agent: agent.slice(0, 64), role: 'bot' }
}

const unnamedBot: AgentHint = Object.freeze({ agent: 'bot', role: 'bot' })

let isbot: ((userAgent: string) => boolean) | undefined
let loading: Promise<void> | undefined

/**
 * Asks the package `isbot` too, if the app has it installed, about User-Agents that the tables do not know. Resolves once it
 * is loaded or found missing; until then it is not asked.
 */
export function loadIsbot(): Promise<void> {
  // import() is what both builds have: `require` there is none in an ES module, and a path to resolve from in neither.
  loading ??= import('isbot').then(
    (module) => {
      isbot = module.isbot
      remembered.clear()
    },
    () => undefined,
  )
  return loading
}
