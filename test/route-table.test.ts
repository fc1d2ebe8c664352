import express, { type Request } from 'express'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { RampmeterError } from '../src/errors.ts'
import { createRouteTable } from '../src/route-table.ts'
import { serve } from './http/serve.ts'

/** What the table finds for a request, or `none`. */
function find(keys: readonly string[], method: string, path: string): { value: string; params: object } {
  const table = createRouteTable(Object.fromEntries(keys.map((key) => [key, key])), 'none')
  const { value, params } = table({ method, path } as Request)
  return { value, params: { ...params } }
}

describe('createRouteTable', () => {
  it('finds the first entry that matches', () => {
    const keys = ['GET /users/me', 'GET /users/:id', '/users/:id', '/*rest']
    expect(find(keys, 'GET', '/users/me')).toEqual({ value: 'GET /users/me', params: {} })
    expect(find(keys, 'GET', '/users/7')).toEqual({ value: 'GET /users/:id', params: { id: '7' } })
    expect(find(keys, 'PUT', '/users/7')).toEqual({ value: '/users/:id', params: { id: '7' } })
    expect(find(keys, 'PUT', '/a/b')).toEqual({ value: '/*rest', params: { rest: ['a', 'b'] } })
    expect(find(['/*rest', 'GET /a'], 'GET', '/a').value).toBe('/*rest')
    expect(find(['GET /a'], 'GET', '/b')).toEqual({ value: 'none', params: {} })
  })

  it('lets GET cover HEAD, and nothing else', () => {
    expect(find(['GET /a'], 'HEAD', '/a').value).toBe('GET /a')
    expect(find(['HEAD /a', 'GET /a'], 'HEAD', '/a').value).toBe('HEAD /a')
    expect(find(['HEAD /a'], 'GET', '/a').value).toBe('none')
    expect(find(['GET /a'], 'OPTIONS', '/a').value).toBe('none')
    expect(find(['POST /a'], 'HEAD', '/a').value).toBe('none')
  })

  it('takes a slash at the end of an entry for optional, as Express does', () => {
    expect(find(['POST /login/'], 'POST', '/login').value).toBe('POST /login/')
    expect(find(['POST /login/'], 'POST', '/login/').value).toBe('POST /login/')
    expect(find(['/users/:id/'], 'GET', '/users/7').params).toEqual({ id: '7' })
    expect(find(['/'], 'GET', '/').value).toBe('/')
  })

  it('takes methods in either case, and those with a hyphen', () => {
    expect(find(['post /a'], 'POST', '/a').value).toBe('post /a')
    expect(find(['M-SEARCH /a'], 'M-SEARCH', '/a').value).toBe('M-SEARCH /a')
    expect(find(['GET   /a'], 'GET', '/a').value).toBe('GET   /a')
  })

  it('reads optional groups and wildcards as Express 5 does', () => {
    expect(find(['/report{.:format}'], 'GET', '/report').params).toEqual({})
    expect(find(['/report{.:format}'], 'GET', '/report.csv').params).toEqual({ format: 'csv' })
    expect(find(['/files{/*path}'], 'GET', '/files/a/b%20c').params).toEqual({ path: ['a', 'b c'] })
    expect(find(['/files{/*path}'], 'GET', '/files').params).toEqual({})
    expect(find(['/a\\:b'], 'GET', '/a:b').value).toBe('/a\\:b')
  })

  it('keeps what is not well encoded as it came', () => {
    expect(find(['/u/:id'], 'GET', '/u/%zz').params).toEqual({ id: '%zz' })
    expect(find(['/u/:id'], 'GET', '/u/%C3%28').params).toEqual({ id: '%C3%28' })
  })

  it('gives parameters no prototype to be confused with', () => {
    const table = createRouteTable({ '/u/:id': 1 }, 0)
    const { params } = table({ method: 'GET', path: '/u/1' } as Request)
    expect(params['constructor']).toBeUndefined()
  })

  it.each([
    ['search', 'write a method and a path'],
    ['', 'write a method and a path'],
    ['*', 'write a method and a path'],
    ['GET', 'write a method and a path'],
    ['GET search', 'write a method and a path'],
    ['GET,POST /search', 'write a method and a path'],
    ['FETCH /search', 'FETCH is not an HTTP method'],
    ['GET /search/:', 'does not parse'],
    ['/*', 'does not parse'],
    ['/search?', 'does not parse'],
    ['/a(b)', 'does not parse'],
    ['/{a', 'does not parse'],
  ])('refuses %j when the app starts', (key, message) => {
    let thrown: unknown
    try {
      createRouteTable({ [key]: 1 }, 0)
    } catch (error) {
      thrown = error
    }
    expect(thrown).toBeInstanceOf(RampmeterError)
    expect(thrown).toMatchObject({ code: 'RAMPMETER_INVALID_ROUTE' })
    expect((thrown as Error).message).toContain(`routes[${JSON.stringify(key)}]`)
    expect((thrown as Error).message).toContain(message)
  })

  it('agrees with Express 5 on what matches, and on the parameters', async () => {
    const patterns = [
      '/users/:id',
      '/users/:id/posts{/:post}',
      '/Files/*path',
      '/a{/b}',
      '/x-:from-:to',
      '/deep/{:opt/}end',
      '/',
      '/sp%20ace',
      '/b/',
      '/b/:x//',
    ]
    const app = express()
    for (const pattern of patterns) {
      app.all(pattern, (req, res) => {
        res.json({ value: pattern, params: req.params })
      })
    }
    app.use((_req, res) => {
      res.json({ value: 'none', params: {} })
    })
    const served = await serve(app)

    const segment = fc.oneof(
      fc.constantFrom(
        'users',
        'USERS',
        'posts',
        'files',
        'a',
        'b',
        'x-1-2',
        'x--',
        'deep',
        'end',
        'sp%20ace',
        '',
        '%41',
        '.',
      ),
      fc.string({ unit: fc.constantFrom(...'abAB01-_.~:@!$'.split('')), maxLength: 6 }),
    )
    const path = fc
      .tuple(fc.array(segment, { maxLength: 5 }), fc.boolean())
      // Two slashes at the start would be a host to some clients; Express and Node take them for a path.
      .map(([segments, slash]) => `/${segments.join('/')}${slash ? '/' : ''}`)

    await fc.assert(
      fc.asyncProperty(path, async (path) => {
        const { json } = await served.ask(path)
        expect(find(patterns, 'GET', path)).toEqual(json)
      }),
      { numRuns: 300 },
    )
  })
})
