import type { HttpBindings } from '@hono/node-server'
import { constantTimeIndexOf } from '@proxy/auth'
import { plainAddress, TrustedProxies } from '@proxy/pipeline'
import { Hono, type MiddlewareHandler } from 'hono'
import type { Settings } from './config/schema.ts'
import type { Metrics } from './metrics.ts'

export interface AdminOptions {
  readonly settings: Pick<Settings, 'admin' | 'trustedProxies'>
  /** Absent: no metrics. */
  readonly metrics?: Metrics | undefined
  /** `ready` once every listener listens, until the server is told to end. */
  readonly state: () => 'starting' | 'ready' | 'draining'
  readonly onError: (error: unknown) => void
}

type Env = { Bindings: HttpBindings }

const loopback = ['127.0.0.0/8', '::1']

/** The server's own pages, all below `admin.prefix`: health and readiness for everybody, the rest for those who are let in. */
export function adminApp({ settings, metrics, state, onError }: AdminOptions): Hono<Env> {
  const app = new Hono<Env>().basePath(settings.admin.prefix)
  app.use(async (context, next) => {
    context.header('cache-control', 'no-store')
    await next()
  })
  app.get('/health', (context) => context.json({ status: 'healthy', timestamp: new Date().toISOString() }))
  app.get('/ready', (context) => {
    const now = state()
    return context.json({ status: now }, now === 'ready' ? 200 : 503)
  })
  if (metrics !== undefined) {
    app.get('/metrics', guard(settings), async (context) => context.body(await metrics.render(), 200, { 'content-type': metrics.contentType }))
  }
  for (const path of ['/health', '/ready', ...(metrics === undefined ? [] : ['/metrics'])]) {
    app.all(path, (context) => context.json({ error: 'method not allowed' }, 405, { allow: 'GET, HEAD' }))
  }
  app.notFound((context) => context.json({ error: 'not found' }, 404))
  app.onError((error, context) => {
    onError(error)
    return context.json({ error: 'internal error' }, 500)
  })
  return app
}

/** Lets in who comes from an allowed address or shows the key, as `X-API-Key` or `Authorization: Bearer`. */
function guard({ admin, trustedProxies }: AdminOptions['settings']): MiddlewareHandler<Env> {
  const allowed = new TrustedProxies(admin.allow.flatMap((entry) => (entry === 'loopback' ? loopback : [entry])))
  const trusted = new TrustedProxies(trustedProxies)
  const keys = admin.key === undefined ? [] : [admin.key]
  return async (context, next) => {
    const shown = context.req.header('x-api-key') ?? /^bearer +(.+)$/i.exec(context.req.header('authorization') ?? '')?.[1]
    if (shown !== undefined && constantTimeIndexOf(shown, keys) === 0) return next()
    const peer = plainAddress(context.env.incoming.socket.remoteAddress)
    const forwardedFor = context.req.header('x-forwarded-for')
    const forwarded = forwardedFor !== undefined || context.req.header('forwarded') !== undefined
    // A proxy on this machine brings everybody's requests from the loopback address: its word for who they are counts only when it is trusted.
    if (!(forwarded && !trusted.trusts(peer)) && allowed.trusts(trusted.clientAddress(peer, forwardedFor))) return next()
    if (keys.length === 0) return context.json({ error: 'forbidden' }, 403)
    return context.json({ error: 'unauthorized' }, 401, { 'www-authenticate': 'Bearer realm="admin"' })
  }
}
