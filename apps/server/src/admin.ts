import type { HttpBindings } from '@hono/node-server'
import { constantTimeIndexOf } from '@proxy/auth'
import type { Purge, PurgeResult } from '@proxy/cache'
import { appendHeader, createHeaders, createRequest, type Handler, isProxyError, type ProxyRequest, plainAddress, readAll, TrustedProxies } from '@proxy/pipeline'
import { type Context, Hono, type MiddlewareHandler } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import type { Settings } from './config/schema.ts'
import type { Metrics } from './metrics.ts'

export interface AdminOptions {
  readonly settings: Pick<Settings, 'admin' | 'trustedProxies'>
  /** Absent: no metrics. */
  readonly metrics?: Metrics | undefined
  /** `ready` once every listener listens, until the server is told to end. */
  readonly state: () => 'starting' | 'ready' | 'draining'
  readonly onError: (error: unknown) => void
  /** Answers with JSON. */
  readonly explain: Handler
  readonly purge: (purge: Purge) => Promise<PurgeResult>
  /** Told of every call that changes something, whether it was let in or not. */
  readonly onAudit: (call: AuditedCall) => void
}

/** A call to the server's own pages that changes something. */
export interface AuditedCall {
  readonly action: string
  /** Address of the peer. */
  readonly peer: string
  readonly status: number
  readonly details?: unknown
}

type Env = { Bindings: HttpBindings; Variables: { details?: unknown } }

/** The longest URL is 8 KiB. */
const MAX_PURGE_BYTES = 16 * 1024

const loopback = ['127.0.0.0/8', '::1']

/** The server's own pages, all below `admin.prefix`: health and readiness for everybody, the rest for those who are let in, what changes something for those with the key. */
export function adminApp({ settings, metrics, state, onError, explain, purge, onAudit }: AdminOptions): Hono<Env> {
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
  app.get('/explain', guard(settings), async (context) => {
    const request = explainedRequest(new URL(context.req.url).searchParams)
    if (typeof request === 'string') return context.json({ error: request }, 400)
    const { status, body } = await explain(request)
    if (status !== 200) return context.json({ error: status === 404 ? 'no route leads there' : 'the path leads to different routes as sent and as decoded' }, status === 404 ? 404 : 400)
    return context.body(String(await readAll(body, 1024 * 1024)), 200, { 'content-type': 'application/json' })
  })
  app.post(
    '/purge',
    audited('purge', onAudit),
    keyOnly(settings),
    bodyLimit({ maxSize: MAX_PURGE_BYTES, onError: (context) => context.json({ error: 'the body is too large' }, 413) }),
    async (context) => {
      // What is no JSON is answered 400 below, like what is JSON but no purge.
      const given: unknown = await context.req.json().catch(() => undefined)
      const problem = purgeProblem(given)
      if (problem !== undefined) return context.json({ error: problem }, 400)
      try {
        const result = await purge(given as Purge)
        context.set('details', { ...(given as Purge), ...result })
        return context.json(result)
      } catch (error) {
        if (error instanceof TypeError) return context.json({ error: error.message }, 400)
        if (!isProxyError(error)) throw error
        context.set('details', { ...(given as Purge), error: error.code })
        return context.json({ error: `purged in this process only, which goes on trying to record it: ${error.code}` }, 503)
      }
    }
  )
  app.all('/purge', (context) => context.json({ error: 'method not allowed' }, 405, { allow: 'POST' }))
  for (const path of ['/health', '/ready', '/explain', ...(metrics === undefined ? [] : ['/metrics'])]) {
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
  return async (context, next) => {
    if (showsKey(context, admin.key)) return next()
    const peer = plainAddress(context.env.incoming.socket.remoteAddress)
    const forwardedFor = context.req.header('x-forwarded-for')
    const forwarded = forwardedFor !== undefined || context.req.header('forwarded') !== undefined
    // A proxy on this machine brings everybody's requests from the loopback address: its word for who they are counts only when it is trusted.
    if (!(forwarded && !trusted.trusts(peer)) && allowed.trusts(trusted.clientAddress(peer, forwardedFor))) return next()
    if (admin.key === undefined) return context.json({ error: 'forbidden' }, 403)
    return context.json({ error: 'unauthorized' }, 401, { 'www-authenticate': 'Bearer realm="admin"' })
  }
}

function showsKey(context: Context<Env>, key: string | undefined): boolean {
  const shown = context.req.header('x-api-key') ?? /^bearer +(.+)$/i.exec(context.req.header('authorization') ?? '')?.[1]
  return key !== undefined && shown !== undefined && constantTimeIndexOf(shown, [key]) === 0
}

/**
 * Lets in who shows the key, and nobody where none is configured. An address is not enough for what changes something: any page in a browser on this machine
 * can send requests to it.
 */
function keyOnly({ admin }: AdminOptions['settings']): MiddlewareHandler<Env> {
  return async (context, next) => {
    if (showsKey(context, admin.key)) return next()
    if (admin.key === undefined) return context.json({ error: 'forbidden: no admin.key is configured' }, 403)
    return context.json({ error: 'unauthorized' }, 401, { 'www-authenticate': 'Bearer realm="admin"' })
  }
}

function audited(action: string, onAudit: AdminOptions['onAudit']): MiddlewareHandler<Env> {
  return async (context, next) => {
    await next()
    onAudit({ action, peer: plainAddress(context.env.incoming.socket.remoteAddress), status: context.res.status, details: context.get('details') })
  }
}

/** The request that a call of `/explain` asks about, or what is wrong with it: `?url=https://…&method=HEAD&header=accept:image/avif`. */
function explainedRequest(parameters: URLSearchParams): ProxyRequest | string {
  const text = parameters.get('url') ?? ''
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) return 'url must be a whole URL such as https://images.example.org/a.png'
  const headers = createHeaders()
  for (const line of parameters.getAll('header')) {
    const match = /^([\w!#$%&'*+.^`|~-]+):[ \t]*([^\r\n]*)$/.exec(line)
    if (match === null) return `header must be a field such as "accept: image/avif", not ${JSON.stringify(line)}`
    appendHeader(headers, (match[1] as string).toLowerCase(), match[2] as string)
  }
  return createRequest({ method: parameters.get('method') ?? 'GET', scheme: url.protocol === 'http:' ? 'http' : 'https', authority: url.host, target: url.pathname + url.search, headers })
}

/** What is wrong with the body of a purge, apart from its values. */
function purgeProblem(given: unknown): string | undefined {
  if (typeof given !== 'object' || given === null || Array.isArray(given)) return 'a JSON object is wanted, such as {"url": "https://images.example.org/a.png"}'
  const unknown = Object.keys(given).find((key) => !['url', 'prefix', 'tag', 'all', 'soft'].includes(key))
  if (unknown !== undefined) return `unknown key ${JSON.stringify(unknown)}`
  const { soft } = given as { soft?: unknown }
  return soft === undefined || typeof soft === 'boolean' ? undefined : 'soft must be true or false'
}
