import type { Readable } from 'node:stream'
import type { Context } from './context.ts'
import type { ProxyError } from './errors.ts'
import type { Exchange } from './exchange.ts'

/**
 * Header fields: lower-case names, no prototype (`createHeaders()` makes one), repeated lines in order as an array.
 * Holds no pseudo-fields, no `host` (see `ProxyRequest.authority`) and no hop-by-hop fields.
 */
export type HeaderMap = Record<string, string | string[] | undefined>

/** A half-open or closed window of a body, in bytes: `start` to `end`, both inclusive as in RFC 9110 section 14.1.2. */
export interface ByteRange {
  readonly start: number
  /** Inclusive. */
  readonly end: number
}

/** What a message carries. `null` is "no body". Bytes given as `Uint8Array` are whole; streams may fail. */
export type Body = BodySource | Readable | Uint8Array | null

/**
 * A body that has not started: the cheap way to hand bytes on, with no stream object between the socket that reads and the one that writes.
 * Exactly one of `start` and `discard` is called, once.
 */
export interface BodySource {
  /** Bytes, when known before the first one is read. */
  readonly length?: number | undefined
  /**
   * Delivers the body to `sink`. May call the sink before it returns (bytes that are already here), so a sink must be ready when it is passed in.
   * After `end` or `error`, or after `Flow.abort`, the sink is not called again.
   */
  start(sink: BodySink): Flow
  /** Gives up a body that nobody will read, and what it holds (an upstream connection, a file). */
  discard(): void
}

export interface BodySink {
  /** One chunk, never changed afterwards by either side. `false` asks the source to pause until `Flow.resume`; chunks already under way may still come. */
  data(chunk: Uint8Array): boolean
  /** The body is complete. */
  end(trailers?: HeaderMap): void
  /** The body broke off: what was delivered must not be treated as complete. */
  error(error: ProxyError): void
}

/** The reader's hold on a started body. */
export interface Flow {
  /** Takes back a `false` of `BodySink.data`. A call without one is harmless. */
  resume(): void
  /** Ends delivery; the sink hears nothing more. A call after the end is harmless. */
  abort(): void
}

/** A request on its way to the origin. Never changed: derive a new one with `derive()`. */
export interface ProxyRequest {
  readonly method: string
  /** Validated origin-form bytes, path and query: `/a/b?c=d`, or `*` for a server-wide OPTIONS. Never parsed by `new URL(target, base)`. */
  readonly target: string
  /** Host and port the client asked for, lower-case, as in the Host field. The only place where it is kept. */
  readonly authority: string
  readonly scheme: 'http' | 'https'
  readonly httpVersion: '1.0' | '1.1' | '2'
  readonly headers: HeaderMap
  /** A streamed body can be sent once; who wants to retry needs `null` or bytes. */
  readonly body: Body
  /** Address of the client, no port: the socket's peer, or what trusted proxies in front say it is. */
  readonly remoteAddress: string
  /** Address of the socket's peer, no port. */
  readonly peerAddress: string
  /** Passes an interim answer (1xx) on to the client. Absent where the host cannot. */
  readonly onInterim?: ((status: number, headers: HeaderMap) => void) | undefined
  /** Aborted when the client has left before its answer was complete. Made when first read. */
  readonly signal: AbortSignal
  /** Typed values that go inwards, from layer to layer. */
  readonly context: Context
  /** The record of this exchange: written by inner layers, read by logs and metrics. Never sent. */
  readonly exchange: Exchange
}

/** An answer. Belongs to whoever received it, who returns it, sends it or discards it: exactly one of the three. Its `headers` are the owner's to change. */
export interface ProxyResponse {
  status: number
  headers: HeaderMap
  body: Body
}

/** Answers one request, or throws a `ProxyError`. Always a Promise. */
export type Handler = (request: ProxyRequest) => Promise<ProxyResponse>

/**
 * A function from handler to handler. It may call `next` never (a cache hit), once, or many times (a retry), also after the reply was returned.
 * A layer that does not look at the answer returns `next(request)` without awaiting it.
 */
export type Middleware = (next: Handler) => Handler
