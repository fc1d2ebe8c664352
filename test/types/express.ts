// The middleware among Express's own types: it must neither widen nor narrow what the handlers behind it know. Compiled with
// the types of Express 5 by `npm run typecheck`, and with those of Express 4 by express4.test.ts.

import express, { type Request, type RequestHandler, type Response } from 'express'
import { rampmeter, slidingWindow, type Client, type Decision } from '../../src/index.ts'

const app = express()
const router = express.Router()
const limiter = rampmeter()

app.use(limiter)
app.use('/api', limiter)
app.use('/api', limiter, router)
app.use([limiter, limiter.route({ cost: 2 })])
router.use(limiter)
router.route('/x').get(limiter.route({}), (_req, res) => void res.end())

// Parameters stay inferred from the path.
app.get('/search/:id', limiter.route({ cost: 5 }), (req, res) => {
  req.params.id satisfies string
  // @ts-expect-error -- there is no such parameter
  void req.params.name
  res.json(req.params.id)
})
app.get('/search/:id/:page', limiter, limiter.route({ cost: 5 }), (req) => {
  req.params.id satisfies string
  req.params.page satisfies string
  // @ts-expect-error -- there is no such parameter
  void req.params.name
})
router.post('/users/:user', limiter.route({ name: 'wire' }), (req) => {
  req.params.user satisfies string
  // @ts-expect-error -- there is no such parameter
  void req.params.id
})

// Nor do they lose what the app says of bodies, queries and locals.
interface Body {
  readonly text: string
}
app.post(
  '/typed/:id',
  limiter.route({ cost: 2 }),
  (req: Request<{ id: string }, Body, Body, { q?: string }>, res: Response<Body, { user: string }>) => {
    req.body.text satisfies string
    req.query.q satisfies string | undefined
    res.locals.user satisfies string
    res.json({ text: req.params.id })
    // @ts-expect-error -- no such body
    res.json({ texts: req.params.id })
  },
)
const typed: RequestHandler<{ id: string }, Body, Body> = (req, res) => void res.json({ text: req.body.text })
app.post('/typed/:id', limiter.route({}), typed)
limiter satisfies RequestHandler
limiter.route({}) satisfies RequestHandler<{ id: string }, Body, Body>

// The decision is on Express's own request, and absent where the limiter did not see it.
app.get('/', limiter, (req, res) => {
  req.rateLimit satisfies Decision | undefined
  // @ts-expect-error -- it may be absent
  void req.rateLimit.admitted
  req.rateLimit?.client satisfies Client | undefined
  const plan: string = req.rateLimit?.client.claims.plan
  const remaining: number | undefined = req.rateLimit?.limits[0]?.remaining
  req.rateLimit?.settle(5)
  req.rateLimit?.settle({ tokens: 5 })
  // @ts-expect-error -- the cost of a policy is a number
  req.rateLimit?.settle({ tokens: '5' })
  req.rateLimit?.refund()
  // @ts-expect-error -- it is told, not set
  req.rateLimit!.admitted = true
  res.json({ plan, remaining })
})

// A handler's and a skip's request is Express's, too.
rampmeter({
  skip: (req) => req.path.startsWith('/static/'),
  handler: (req, res, _next, decision) => {
    res.json({ path: req.path, reason: decision.reason, wait: decision.retryAfterMs })
  },
  trustedAddress: (req) => req.get('cf-connecting-ip'),
  policies: [slidingWindow({ quota: 5, window: '1m', partition: (req) => String(req.params['tenant']) })],
})
