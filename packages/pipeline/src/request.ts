import { type AbortSource, abortSource, neverAborted } from './abort.ts'
import { Context } from './context.ts'
import { Exchange } from './exchange.ts'
import { createHeaders } from './headers.ts'
import type { Body, HeaderMap, ProxyRequest } from './types.ts'

/** What `derive` may replace. */
export interface RequestChanges {
  readonly method?: string
  readonly target?: string
  readonly authority?: string
  readonly scheme?: 'http' | 'https'
  readonly headers?: HeaderMap
  readonly body?: Body
  readonly signal?: AbortSignal
  readonly context?: Context
  /** For a request that the program makes on its own account: what becomes of it is not written into the record of the client's. */
  readonly exchange?: Exchange
}

/** A request with some parts replaced; the others, and what is lazy in them, stay the original's. */
export function derive(request: ProxyRequest, changes: RequestChanges): ProxyRequest {
  return new DerivedRequest(request, changes)
}

/** `request` with one more context value: the common case of `derive`. */
export function withContext(request: ProxyRequest, context: Context): ProxyRequest {
  return new DerivedRequest(request, undefined, context)
}

/** Getters on the prototype: an object literal with accessors costs ten times as much to make. Never deeper than one level: deriving twice merges. */
class DerivedRequest implements ProxyRequest {
  private readonly base: ProxyRequest
  private readonly changes: RequestChanges | undefined
  readonly context: Context

  constructor(request: ProxyRequest, changes: RequestChanges | undefined, context?: Context) {
    this.context = context ?? changes?.context ?? request.context
    if (request instanceof DerivedRequest) {
      this.base = request.base
      this.changes = changes === undefined ? request.changes : request.changes === undefined ? changes : { ...request.changes, ...changes }
    } else {
      this.base = request
      this.changes = changes
    }
  }

  get method(): string {
    return this.changes?.method ?? this.base.method
  }
  get target(): string {
    return this.changes?.target ?? this.base.target
  }
  get authority(): string {
    return this.changes?.authority ?? this.base.authority
  }
  get scheme(): 'http' | 'https' {
    return this.changes?.scheme ?? this.base.scheme
  }
  get httpVersion(): '1.0' | '1.1' | '2' {
    return this.base.httpVersion
  }
  get headers(): HeaderMap {
    return this.changes?.headers ?? this.base.headers
  }
  get body(): Body {
    const changes = this.changes
    return changes !== undefined && changes.body !== undefined ? changes.body : this.base.body
  }
  get remoteAddress(): string {
    return this.base.remoteAddress
  }
  get peerAddress(): string {
    return this.base.peerAddress
  }
  get onInterim(): ((status: number, headers: HeaderMap) => void) | undefined {
    const base = this.base
    return base.onInterim === undefined ? undefined : (status, headers) => base.onInterim?.(status, headers)
  }
  get signal(): AbortSignal {
    return this.changes?.signal ?? this.base.signal
  }
  get [abortSource](): AbortSource | undefined {
    return this.changes?.signal === undefined ? (this.base as { [abortSource]?: AbortSource | undefined })[abortSource] : undefined
  }
  get exchange(): Exchange {
    return this.changes?.exchange ?? this.base.exchange
  }
}

/** A request made by the program itself: a warm-up, a health check, a test. */
export interface RequestInit extends RequestChanges {
  readonly remoteAddress?: string
}

/** A request from its parts. Defaults: `GET / HTTP/1.1` from 127.0.0.1 to `localhost`, no fields, no body, never aborted. */
export function createRequest(init: RequestInit = {}): ProxyRequest {
  const address = init.remoteAddress ?? '127.0.0.1'
  return {
    method: init.method ?? 'GET',
    target: init.target ?? '/',
    authority: init.authority ?? 'localhost',
    scheme: init.scheme ?? 'http',
    httpVersion: '1.1',
    headers: init.headers ?? createHeaders(),
    body: init.body ?? null,
    remoteAddress: address,
    peerAddress: address,
    signal: init.signal ?? neverAborted,
    context: init.context ?? Context.empty,
    exchange: init.exchange ?? new Exchange()
  }
}
