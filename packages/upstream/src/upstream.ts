import type { Readable } from 'node:stream'
import { type Body, clientAborted, type Handler, ProxyError, type ProxyRequest, type ProxyResponse, target, toReadable, upstreamName, upstreamResult, WholeBody } from '@proxy/pipeline'
import { type Dispatcher, Pool } from 'undici'
import { UpstreamCall } from './call.ts'
import { RequestHeaderBuilder, type RequestHeaderRules } from './request-headers.ts'

export interface UpstreamOptions {
  /** Where requests go: scheme, host and port, no path. Default: the `target` that a balancing layer put into the request's context. */
  readonly origin?: string
  /** Deadline for a connection, TLS included. Milliseconds. Default 5 000. */
  readonly connectTimeoutMs?: number
  /** Deadline for the header of the answer, from when the request was sent. Milliseconds. Default 30 000. */
  readonly headersTimeoutMs?: number
  /** Longest pause in the body of the answer, while it is being read. Milliseconds. Default 30 000. */
  readonly bodyTimeoutMs?: number
  /** Connections per origin. Requests beyond wait for one. Default 256. */
  readonly connections?: number
  /** How long an idle connection is kept. Milliseconds. Default 4 000: less than most origins do, so that they rarely close first. */
  readonly keepAliveMs?: number
  /** Largest header section of an answer. Bytes. Default 64 KiB. */
  readonly maxHeaderBytes?: number
  readonly tls?: UpstreamTlsOptions
  readonly requestHeaders?: RequestHeaderRules
  /** Whether the client's fields go to the origin. `none` leaves those of the request itself: conditions, Range, Cache-Control, the type and length of its body. Default `forward`. */
  readonly clientHeaders?: 'forward' | 'none'
  /** Name of this proxy in Via, in both directions. `false`: none. Default `proxy`. */
  readonly via?: string | false
  /** Whether X-Forwarded-For, -Host and -Proto tell the origin about the client. Default true. */
  readonly xForwarded?: boolean
}

export interface UpstreamTlsOptions {
  /** Default true. False accepts any certificate: for tests. */
  readonly rejectUnauthorized?: boolean
  /** Certificate authorities, PEM, instead of Node's. */
  readonly ca?: string | readonly string[]
  /** Name asked for and verified instead of the origin's host. */
  readonly servername?: string
}

export interface UpstreamHandler extends Handler {
  /** Ends requests under way, closes all connections. */
  close(): Promise<void>
}

/**
 * The innermost handler: sends the request to an origin and streams the answer back, both with backpressure. Follows no redirects, decodes nothing,
 * verifies TLS. Throws `ProxyError` with source `upstream`: 502 when the origin refuses, resets or breaks the protocol, 504 when it takes too long.
 *
 * @example
 * const handler = upstream({ origin: 'https://example.org' })
 */
export function upstream(options: UpstreamOptions = {}): UpstreamHandler {
  const via = options.via === false ? undefined : (options.via ?? 'proxy')
  const origin = options.origin === undefined ? undefined : parseOrigin(options.origin)
  const headers = new RequestHeaderBuilder(options.requestHeaders ?? {}, options.clientHeaders !== 'none', { via: via ?? false, xForwarded: options.xForwarded ?? true })
  const pools = new Map<string, Pool>()

  const poolOf = (to: string): Pool => {
    let pool = pools.get(to)
    if (pool === undefined) {
      pool = createPool(to, options)
      pools.set(to, pool)
    }
    return pool
  }
  if (origin !== undefined) poolOf(origin)

  const send = (request: ProxyRequest, to: string, again: boolean): Promise<ProxyResponse> =>
    new Promise<ProxyResponse>((resolve, reject) => {
      const fail = (error: ProxyError): void => {
        // The origin closed an idle connection at the moment we used it: not its answer to this request.
        if (!again && mayRepeat(request) && closedWhenReused(error)) send(request, to, true).then(resolve, reject)
        else {
          request.exchange.set(upstreamResult, error.code)
          reject(error)
        }
      }
      if (request.signal.aborted) {
        fail(clientAborted())
        return
      }
      const call = new UpstreamCall(request, to, via, resolve, fail)
      const dispatch: Dispatcher.DispatchOptions = {
        path: request.target,
        method: request.method as Dispatcher.HttpMethod,
        headers: headers.build(request),
        body: uploadOf(request.body),
        reset: false
      }
      poolOf(to).dispatch(dispatch, call)
    })

  const handler: Handler = (request) => {
    const chosen = origin === undefined ? request.context.get(target) : undefined
    const to = origin ?? chosen?.origin
    if (to === undefined) return Promise.reject(new ProxyError('no origin: neither upstream({ origin }) nor a balancing layer names one', { code: 'UPSTREAM_NO_TARGET', status: 500, source: 'proxy' }))
    request.exchange.set(upstreamName, chosen?.name ?? to.slice(to.indexOf('//') + 2))
    return send(request, to, false)
  }
  return Object.assign(handler, {
    close: async () => {
      await Promise.all([...pools.values()].map((pool) => pool.destroy()))
      pools.clear()
    }
  })
}

/** Throws TypeError unless `text` is scheme, host and port alone. */
function parseOrigin(text: string): string {
  const match = /^https?:\/\/[^/?#@\s]+\/?$/i.exec(text)
  if (match === null || !URL.canParse(text)) throw new TypeError(`"${text}" is no origin: scheme, host and port, like https://example.org:8443`)
  return new URL(text).origin
}

function createPool(origin: string, options: UpstreamOptions): Pool {
  const { tls } = options
  return new Pool(origin, {
    connections: options.connections ?? 256,
    pipelining: 1,
    allowH2: false,
    headersTimeout: options.headersTimeoutMs ?? 30_000,
    bodyTimeout: options.bodyTimeoutMs ?? 30_000,
    keepAliveTimeout: options.keepAliveMs ?? 4_000,
    keepAliveMaxTimeout: 600_000,
    maxHeaderSize: options.maxHeaderBytes ?? 64 * 1024,
    connect: {
      timeout: options.connectTimeoutMs ?? 5_000,
      rejectUnauthorized: tls?.rejectUnauthorized ?? true,
      ...(tls?.ca === undefined ? {} : { ca: typeof tls.ca === 'string' ? tls.ca : [...tls.ca] }),
      ...(tls?.servername === undefined ? {} : { servername: tls.servername })
    }
  })
}

function uploadOf(body: Body): Buffer | Readable | null {
  if (body === null) return null
  if (body instanceof Uint8Array) return body as Buffer
  return body instanceof WholeBody ? (body.toBytes() as Buffer) : toReadable(body)
}

const idempotent: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE'])

function mayRepeat(request: ProxyRequest): boolean {
  return idempotent.has(request.method) && (request.body === null || request.body instanceof Uint8Array || request.body instanceof WholeBody)
}

/** undici notes on the error how much the connection had carried: one that had answered before and closed without a byte of answer was idle on the other side. */
function closedWhenReused(error: ProxyError): boolean {
  if (error.code !== 'UPSTREAM_CONNECTION_LOST' || error.retryable) return false
  const socket = (error.cause as { socket?: { bytesRead?: number } } | undefined)?.socket
  return socket !== undefined && (socket.bytesRead ?? 0) > 0
}
