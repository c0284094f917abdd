import {
  type BodySink,
  type BodySource,
  clientAborted,
  combined,
  connectionOptions,
  createHeaders,
  type Flow,
  type HeaderMap,
  isHopByHop,
  type ProxyError,
  type ProxyRequest,
  type ProxyResponse
} from '@proxy/pipeline'
import type { Dispatcher } from 'undici'
import { upstreamError } from './errors.ts'

/** Bytes that may wait here until the body is started or its reader goes on; then the origin's connection is paused. */
const HIGH_WATER_BYTES = 64 * 1024
/** A body that nobody wants is read to its end when no more than this is missing, which is cheaper than a new connection. */
const DRAIN_BYTES = 64 * 1024

type Headers = Record<string, string | string[] | undefined>

/** One request at an origin: what undici reports to, and, once the header is there, the body of the answer. A single object per request. */
export class UpstreamCall implements Dispatcher.DispatchHandler, BodySource, Flow {
  length: number | undefined
  private readonly request: ProxyRequest
  private readonly origin: string
  private readonly via: string | undefined
  private readonly resolve: (response: ProxyResponse) => void
  private readonly reject: (error: ProxyError) => void
  private readonly onAbort: () => void
  private controller: Dispatcher.DispatchController | undefined
  private sink: BodySink | undefined
  private early: Uint8Array[] | undefined
  private earlyBytes = 0
  private receivedBytes = 0
  private state: 'waiting' | 'body' | 'draining' | 'ended' | 'failed' = 'waiting'
  private trailers: HeaderMap | undefined
  private failure: ProxyError | undefined

  constructor(request: ProxyRequest, origin: string, via: string | undefined, resolve: (response: ProxyResponse) => void, reject: (error: ProxyError) => void) {
    this.request = request
    this.origin = origin
    this.via = via
    this.resolve = resolve
    this.reject = reject
    this.onAbort = () => this.cancel(clientAborted())
    request.signal.addEventListener('abort', this.onAbort)
  }

  // What undici calls.

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.controller = controller
    if (this.state === 'failed') controller.abort(this.failure as ProxyError)
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number, fields: Headers): void {
    this.controller = controller
    if (this.state !== 'waiting') return
    if (status < 200) {
      this.request.onInterim?.(status, this.responseHeaders(fields))
      return
    }
    this.state = 'body'
    const headers = this.responseHeaders(fields)
    const declared = headers['content-length']
    this.length = typeof declared === 'string' ? Number(declared) : undefined
    const bodiless = this.request.method === 'HEAD' || status === 204 || status === 304 || this.length === 0
    if (bodiless) this.state = 'draining'
    this.resolve({ status, headers, body: bodiless ? null : this })
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.receivedBytes += chunk.byteLength
    if (this.state !== 'body') return
    if (this.sink !== undefined) {
      if (!this.sink.data(chunk)) controller.pause()
      return
    }
    if (this.early === undefined) this.early = [chunk]
    else this.early.push(chunk)
    this.earlyBytes += chunk.byteLength
    if (this.earlyBytes >= HIGH_WATER_BYTES) controller.pause()
  }

  onResponseEnd(_controller: Dispatcher.DispatchController, fields: Headers | undefined): void {
    if (this.state === 'failed') return
    for (const name in fields) {
      if (isHopByHop(name)) continue
      this.trailers ??= createHeaders()
      this.trailers[name] = fields[name]
    }
    this.finish('ended')
    this.sink?.end(this.trailers)
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    if (this.state === 'failed' || this.state === 'ended') return
    const waiting = this.state === 'waiting'
    const failure = upstreamError(error, this.origin, this.controller !== undefined)
    this.failure = failure
    this.finish('failed')
    if (waiting) this.reject(failure)
    else this.sink?.error(failure)
  }

  // The body.

  start(sink: BodySink): Flow {
    this.sink = sink
    const { early } = this
    this.early = undefined
    let wanted = true
    if (early !== undefined) for (const chunk of early) wanted = sink.data(chunk)
    if (this.state === 'ended') sink.end(this.trailers)
    else if (this.state === 'failed') sink.error(this.failure as ProxyError)
    else if (wanted) this.controller?.resume()
    else this.controller?.pause()
    return this
  }

  resume(): void {
    if (this.state === 'body') this.controller?.resume()
  }

  abort(): void {
    this.sink = undefined
    this.discard()
  }

  discard(): void {
    this.early = undefined
    if (this.state !== 'body') return
    if (this.length !== undefined && this.length - this.receivedBytes <= DRAIN_BYTES) {
      this.state = 'draining'
      this.controller?.resume()
    } else this.cancel(clientAborted())
  }

  /** Gives the request up; the connection goes with it. */
  private cancel(reason: ProxyError): void {
    if (this.state === 'ended' || this.state === 'failed') return
    const waiting = this.state === 'waiting'
    this.failure = reason
    this.finish('failed')
    this.controller?.abort(reason)
    if (waiting) this.reject(reason)
    else this.sink?.error(reason)
  }

  private finish(state: 'ended' | 'failed'): void {
    this.state = state
    this.request.signal.removeEventListener('abort', this.onAbort)
  }

  /** The origin's fields without those of the connection, with this hop in Via. */
  private responseHeaders(fields: Headers): HeaderMap {
    const headers = createHeaders()
    const listed = connectionOptions(fields.connection)
    for (const name in fields) if (!isHopByHop(name) && !listed?.has(name)) headers[name] = fields[name]
    if (this.via !== undefined) {
      const before = combined(headers.via)
      headers.via = before === undefined ? `1.1 ${this.via}` : `${before}, 1.1 ${this.via}`
    }
    return headers
  }
}
