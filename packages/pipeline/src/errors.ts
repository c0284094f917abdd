import { STATUS_CODES } from 'node:http'
import { createHeaders } from './headers.ts'
import type { ProxyResponse } from './types.ts'

const brand = Symbol.for('@proxy/ProxyError')

/** Who is at fault: the client (4xx), this proxy (5xx of its own), or the upstream (502, 503, 504). */
export type ErrorSource = 'client' | 'proxy' | 'upstream'

export interface ProxyErrorOptions {
  /** Stable, upper-case: `UPSTREAM_CONNECT_REFUSED`. */
  readonly code: string
  /** HTTP status that a client is answered with. */
  readonly status: number
  readonly source: ErrorSource
  /** Whether the same request may succeed when sent again, here or to another target, and nothing of it was processed. */
  readonly retryable?: boolean
  /** RFC 9209 `error` parameter: `connection_refused`, `http_response_timeout` … Sent in Proxy-Status. */
  readonly proxyStatus?: string
  /** Seconds for Retry-After. */
  readonly retryAfter?: number
  readonly cause?: unknown
}

/** Every failure of a handler. `message` is for logs: clients see only the status and its standard phrase. */
export class ProxyError extends Error {
  override readonly name = 'ProxyError'
  readonly code: string
  readonly status: number
  readonly source: ErrorSource
  readonly retryable: boolean
  readonly proxyStatus: string | undefined
  readonly retryAfter: number | undefined
  /** Holds across two copies of this package; `instanceof` does not. */
  readonly [brand] = true

  constructor(message: string, options: ProxyErrorOptions) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = options.code
    this.status = options.status
    this.source = options.source
    this.retryable = options.retryable ?? false
    this.proxyStatus = options.proxyStatus
    this.retryAfter = options.retryAfter
  }
}

export function isProxyError(value: unknown): value is ProxyError {
  return typeof value === 'object' && value !== null && (value as { [brand]?: unknown })[brand] === true
}

/** Any thrown value as a `ProxyError`: what is not one already is a fault of the proxy, 500. */
export function toProxyError(value: unknown): ProxyError {
  if (isProxyError(value)) return value
  const message = value instanceof Error ? value.message : describe(value)
  return new ProxyError(message, { code: 'PROXY_INTERNAL', status: 500, source: 'proxy', proxyStatus: 'proxy_internal_error', cause: value })
}

function describe(value: unknown): string {
  try {
    return String(value)
  } catch {
    // An object without a prototype has no text; that it was thrown is what matters.
    return 'a value that has no text was thrown'
  }
}

/** The client has left: nothing more to do for this request. 499 is never sent, it is what logs show. */
export function clientAborted(cause?: unknown): ProxyError {
  return new ProxyError('the client closed the connection', { code: 'CLIENT_ABORTED', status: 499, source: 'client', cause })
}

/** Where the current name (RFC 9110 section 15) is not the one that node:http has. */
const phrases: Readonly<Record<number, string>> = {
  413: 'Content Too Large',
  422: 'Unprocessable Content'
}

export interface ErrorResponseOptions {
  /** Name of this proxy in Proxy-Status (RFC 9209), a token. Default `proxy`. */
  readonly proxyName?: string
}

/** Throws TypeError when `name` is no sf-token (RFC 9651 section 3.3.4): in a field it would break every answer to a failure. */
export function checkProxyName(name: string | undefined): void {
  if (name !== undefined && !/^[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*$/.test(name)) throw new TypeError(`"${name}" is no token: it cannot be a proxyName`)
}

/** The one place that turns a failure into an answer: status, standard phrase, Proxy-Status and Retry-After. No message, no stack, no address. */
export function errorResponse(error: unknown, options?: ErrorResponseOptions): ProxyResponse {
  const failure = toProxyError(error)
  // 499 is for logs: a client that reads this answer has not left.
  const status = Number.isInteger(failure.status) && failure.status >= 400 && failure.status <= 599 && failure.status !== 499 ? failure.status : 500
  const body = Buffer.from(`${phrases[status] ?? STATUS_CODES[status] ?? (status < 500 ? 'Bad Request' : 'Internal Server Error')}\n`, 'latin1')
  const headers = createHeaders()
  headers['content-type'] = 'text/plain; charset=utf-8'
  headers['content-length'] = String(body.length)
  headers['cache-control'] = 'no-store'
  if (failure.proxyStatus !== undefined) headers['proxy-status'] = `${options?.proxyName ?? 'proxy'}; error=${failure.proxyStatus}`
  if (failure.retryAfter !== undefined && Number.isFinite(failure.retryAfter)) headers['retry-after'] = String(Math.max(1, Math.ceil(failure.retryAfter)))
  return { status, headers, body }
}
