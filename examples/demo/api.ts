// The API that the demo serves: a small shop, with paged lists, an OpenAPI document that says where everything is, and a
// limiter in front of it all.

import express, { type Express, type RequestHandler } from 'express'
import type { Accounts } from './accounts.ts'

const pageSize = 20
const products = Array.from({ length: 300 }, (_, index) => ({
  id: `p${index + 1}`,
  name: `Lamp No. ${index + 1}`,
  cents: 1500 + ((index * 379) % 9000),
}))
const firstOrders = Array.from({ length: 160 }, (_, index) => ({
  id: `o${index + 1}`,
  product: `p${((index * 7) % products.length) + 1}`,
  state: 'shipped',
}))
/** Later orders replace the oldest of each other, so that nobody can fill the memory. */
const mostOrders = 1000

export function createApi(guard: RequestHandler, accounts: Accounts): Express {
  const app = express()
  const orders = [...firstOrders]

  app.use(guard)
  app.use(express.json())

  app.get('/openapi.json', (_req, res) => {
    res.json(openApi)
  })

  app.post('/session', (req, res) => {
    const { name, password } = req.body ?? {}
    const session = accounts.logIn(String(name), String(password))
    if (session === null) res.sendStatus(401)
    else res.cookie('sid', session, { httpOnly: true, sameSite: 'lax' }).sendStatus(204)
  })

  app.use(asSlowAsADatabase)

  app.get('/products', (req, res) => {
    res.json(pageOf(products, req.query['page']))
  })

  app.get('/products/:id', (req, res) => {
    const product = products.find(({ id }) => id === req.params.id)
    if (product === undefined) res.sendStatus(404)
    else res.json(product)
  })

  app.use('/orders', (req, res, next) => {
    const known = accounts.agentOf(req.get('x-api-key') ?? '') ?? accounts.personOf(req)
    if (known === null) res.sendStatus(401)
    else next()
  })

  app.get('/orders', (req, res) => {
    res.json(pageOf(orders, req.query['page']))
  })

  app.get('/orders/:id', (req, res) => {
    const order = orders.find(({ id }) => id === req.params.id)
    if (order === undefined) res.sendStatus(404)
    else res.json(order)
  })

  app.post('/orders', (req, res) => {
    const product = products.find(({ id }) => id === req.body?.product)
    if (product === undefined) {
      res.sendStatus(422)
      return
    }
    const order = { id: `o${orders.length + 1}`, product: product.id, state: 'placed' }
    if (orders.length < mostOrders) orders.push(order)
    res.status(201).json(order)
  })

  return app
}

const asSlowAsADatabase: RequestHandler = (_req, _res, next) => {
  setTimeout(next, 80 + Math.random() * 140)
}

function pageOf<Item>(items: readonly Item[], asked: unknown): { items: Item[]; page: number; pages: number } {
  const pages = Math.ceil(items.length / pageSize)
  const page = Math.min(pages, Math.max(1, Math.trunc(Number(asked ?? 1)) || 1))
  return { items: items.slice((page - 1) * pageSize, page * pageSize), page, pages }
}

const inPages = [{ name: 'page', in: 'query', schema: { type: 'integer', minimum: 1 } }]
const byId = [{ name: 'id', in: 'path', required: true, schema: { type: 'string' } }]
const account = [{ key: [] }, { session: [] }]

const openApi = {
  openapi: '3.1.0',
  info: { title: 'Lamp shop', version: '1' },
  components: {
    securitySchemes: {
      key: { type: 'apiKey', in: 'header', name: 'x-api-key' },
      session: { type: 'apiKey', in: 'cookie', name: 'sid' },
    },
  },
  paths: {
    '/products': { get: { summary: 'Products, in pages', parameters: inPages } },
    '/products/{id}': { get: { summary: 'One product', parameters: byId } },
    '/orders': {
      get: { summary: 'Orders, in pages', parameters: inPages, security: account },
      post: { summary: 'Places an order: { "product": id }', security: account },
    },
    '/orders/{id}': { get: { summary: 'One order', parameters: byId, security: account } },
  },
}
