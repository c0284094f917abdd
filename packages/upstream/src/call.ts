import type { Readable } from 'node:stream'
import {
  type BodySink,
  type BodySource,
  clientAborted,
  discardBody,
  type Flow,
  type HeaderMap,
  isProxyError,
  offAbort,
  onAbort,
  type ProxyError,
  type ProxyRequest,
  type ProxyResponse,
  upstreamAttempts,
  upstreamResult
} from '@proxy/pipeline'
import type { Dispatcher } from 'undici'
import type { ConnectionState, ConnectionUser } from './connection.ts'
import { Timed } from './deadlines.ts'
import { bodyTimeoutError, brokenUploadError, errorCode, headersTimeoutError, incompleteError, isConnectionLoss, protocolError, unsupportedError, upstreamError } from './errors.ts'
import type { OriginPool } from './origin-pool.ts'
import { type Fields, responseHeaders, trailersOf } from './response-headers.ts'
import { uploadOf } from './upload.ts'

/** Bytes that may wait here until the body is started or its reader goes on; then the origin's connection is paused. */
const HIGH_WATER_BYTES = 64 * 1024
/** A body that nobody wants is read to its end when no more than this is missing, which is cheaper than a new connection. */
const DRAIN_BYTES = 64 * 1024

/** RFC 9110 section 9.2.2. */
const idempotent: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'])

/**
 * `queued`: not on a connection. `sent`: no answer yet. `body`: the answer was handed over, its body is coming. `draining`: what comes is thrown away.
 * `ended` and `failed` are final.
 */
type State = 'queued' | 'sent' | 'body' | 'draining' | 'ended' | 'failed'

/** One request at an origin: what undici reports to, and, once the header is there, the body of the answer. A single object per request. */
export class UpstreamCall extends Timed implements ConnectionUser, BodySource, Flow {
  length: number | undefined
  connection: ConnectionState | undefined
  private readonly pool: OriginPool
  private readonly request: ProxyRequest
  private readonly resolve: (response: ProxyResponse) => void
  private readonly reject: (error: ProxyError) => void
  private options: Dispatcher.DispatchOptions | undefined
  /** The body of the request where it is streamed. */
  private upload: Readable | undefined
  private uploading = false
  private controller: Dispatcher.DispatchController | undefined
  private state: State = 'queued'
  /** Something of the answer has come. */
  private answering = false
  /** Only the close of the connection ends the body. */
  private untilClose = false
  private sink: BodySink | undefined
  /** The sink of a body whose client has left, for as long as it has not given the body up itself. */
  private leaving: BodySink | undefined
  private paused = false
  private early: Uint8Array[] | undefined
  private receivedBytes = 0
  private trailers: HeaderMap | undefined
  private failure: ProxyError | undefined

  constructor(pool: OriginPool, request: ProxyRequest, resolve: (response: ProxyResponse) => void, reject: (error: ProxyError) => void) {
    super()
    this.pool = pool
    this.request = request
    this.resolve = resolve
    this.reject = reject
  }

  /** Puts the request to a connection of the pool, or in the queue for one. */
  dispatch(dispatcher: Dispatcher): void {
    const { request, pool } = this
    if (request.target === '*' || request.method === 'CONNECT') {
      this.refuse(unsupportedError(`${request.method} ${request.target} cannot be forwarded`))
      return
    }
    const body = uploadOf(request.body)
    if (body !== null && !(body instanceof Uint8Array)) {
      this.upload = body
      this.uploading = true
    }
    this.options = { path: request.target, method: request.method as Dispatcher.HttpMethod, headers: pool.headers.build(request), body, reset: false }
    onAbort(request, this)
    pool.queued.add(this)
    dispatcher.dispatch(this.options, this)
  }

  /** Ends the call before anything was sent. */
  refuse(reason: ProxyError): void {
    this.fail(reason)
  }

  // What undici calls.

  onRequestStart(controller: Dispatcher.DispatchController): void {
    // Throwing takes the request out of undici's queue; aborting it would cost the idle connection that it was to be sent on.
    if (this.state === 'failed') throw this.failure as ProxyError
    this.controller = controller
    this.state = 'sent'
    this.pool.sent.add(this)
  }

  onBodySent(): void {
    if (this.uploading && this.state === 'sent') this.pool.sent.add(this)
  }

  onRequestSent(): void {
    this.onBodySent()
    this.uploading = false
  }

  onResponseStarted(): void {
    this.answering = true
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, fields: Fields): void {
    if (this.state !== 'sent') return
    const { request, pool } = this
    if (status < 200) {
      if (status < 100) this.cancel(protocolError(pool.origin, `${status} is no status`))
      else request.onInterim?.(status, responseHeaders(fields, pool.settings.via))
      return
    }
    let bodiless = request.method === 'HEAD' || status === 204 || status === 304
    const headers = responseHeaders(fields, pool.settings.via)
    if (!bodiless) {
      const coding = fields['transfer-encoding']
      const length = headers['content-length']
      const isChunked = coding !== undefined && isChunkedCoding(coding)
      if (coding !== undefined && (length !== undefined || !(isChunked || isUnknown(coding)))) {
        this.cancel(protocolError(pool.origin, 'the length of the body is said twice, or in a transfer coding other than chunked'))
        return
      }
      if (length !== undefined) this.length = Number(length)
      // Also with a transfer coding that nobody has heard of: RFC 9112 section 6.3.
      this.untilClose = length === undefined && !isChunked
      bodiless = this.length === 0
    }
    this.state = bodiless ? 'draining' : 'body'
    pool.bodies.add(this)
    request.exchange.set(upstreamResult, status)
    this.resolve({ status, headers, body: bodiless ? null : this })
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.state !== 'body') return
    this.receivedBytes += chunk.byteLength
    let wanted: boolean
    if (this.sink !== undefined) wanted = this.sink.data(chunk)
    else {
      if (this.early === undefined) this.early = [chunk]
      else this.early.push(chunk)
      wanted = this.receivedBytes < HIGH_WATER_BYTES
    }
    if (!wanted) this.pause(controller)
    else if (this.queue !== undefined) this.pool.bodies.add(this)
  }

  onResponseEnd(_controller: Dispatcher.DispatchController, fields: Fields | undefined): void {
    if (this.state === 'failed') return
    if (this.untilClose && this.connection?.broken === true) {
      this.fail(incompleteError(this.pool.origin))
      return
    }
    if (this.connection !== undefined) this.connection.answers++
    if (this.state === 'body') this.trailers = trailersOf(fields)
    this.finish('ended')
    this.sink?.end(this.trailers)
  }

  onResponseError(_controller: Dispatcher.DispatchController | null, error: Error): void {
    if (this.state === 'failed' || this.state === 'ended') return
    if (this.mayRepeat(error)) this.repeat()
    else this.fail(this.explain(error))
  }

  // The body.

  start(sink: BodySink): Flow {
    const { early, state } = this
    this.early = undefined
    if (state === 'failed' || state === 'draining') {
      sink.error(this.failure ?? clientAborted())
      return this
    }
    this.sink = sink
    let wanted = true
    if (early !== undefined) for (const chunk of early) wanted = sink.data(chunk)
    if (state === 'ended') sink.end(this.trailers)
    else if (wanted) this.resume()
    else if (this.controller !== undefined) this.pause(this.controller)
    return this
  }

  resume(): void {
    if (!this.paused || this.state !== 'body') return
    this.paused = false
    this.pool.bodies.add(this)
    this.controller?.resume()
  }

  abort(): void {
    this.sink = undefined
    this.leaving = undefined
    this.discard()
  }

  discard(): void {
    this.early = undefined
    if (this.state !== 'body') return
    if (this.length !== undefined && this.length - this.receivedBytes <= DRAIN_BYTES) {
      this.state = 'draining'
      // One deadline for all that is left: nobody waits for it.
      this.pool.bodies.add(this)
      this.controller?.resume()
    } else this.cancel(clientAborted())
  }

  // What ends it early.

  /** The client has left. */
  handleEvent(): void {
    if (this.state === 'queued' || this.state === 'sent') this.cancel(clientAborted())
    else if (this.state === 'body') {
      this.failure = clientAborted()
      this.leaving = this.sink
      this.sink = undefined
      this.discard()
      // A reader that writes to the client hears of it by the same event, and gives the body up by itself. The others are told.
      if (this.leaving !== undefined) queueMicrotask(() => this.tell(this.leaving))
    }
  }

  override onDeadline(): void {
    const { pool, state } = this
    if (state === 'queued') this.fail(pool.noConnectionError())
    // The origin cannot answer before it has what the client has not sent yet.
    else if (this.uploading && this.upload?.isPaused() === false) (state === 'sent' ? pool.sent : pool.bodies).add(this)
    else if (state === 'sent') this.cancel(headersTimeoutError(pool.origin, pool.settings.headersTimeoutMs))
    else this.cancel(bodyTimeoutError(pool.origin, pool.settings.bodyTimeoutMs))
  }

  /** Gives the request up; the connection goes with it. */
  private cancel(reason: ProxyError): void {
    const { controller } = this
    this.fail(reason)
    controller?.abort(reason)
  }

  private fail(failure: ProxyError): void {
    const { state, sink } = this
    this.failure = failure
    this.early = undefined
    this.finish('failed')
    if (this.upload !== undefined) discardBody(this.upload)
    if (state === 'queued' || state === 'sent') {
      this.request.exchange.set(upstreamResult, failure.code)
      this.reject(failure)
    } else if (state === 'body') {
      if (failure.source !== 'client') this.request.exchange.set(upstreamResult, failure.code)
      this.tell(sink)
    }
  }

  /** Reports the failure. What the reader throws must not reach undici, where it would end the process. */
  private tell(sink: BodySink | undefined): void {
    try {
      sink?.error(this.failure as ProxyError)
    } catch (thrown) {
      process.emitWarning(thrown instanceof Error ? thrown : new Error(String(thrown)))
    }
  }

  private finish(state: 'ended' | 'failed'): void {
    this.state = state
    this.queue?.remove(this)
    offAbort(this.request, this)
  }

  private pause(controller: Dispatcher.DispatchController): void {
    this.paused = true
    // The origin is not to blame for a reader that takes its time.
    this.queue?.remove(this)
    controller.pause()
  }

  /**
   * The origin closed an idle connection at the moment it was used: that is not its answer to this request. The connection of a second attempt has never been
   * idle, so there is no third.
   */
  private mayRepeat(error: Error): boolean {
    if (this.answering || this.connection === undefined || this.connection.answers === 0 || !isConnectionLoss(error)) return false
    return this.state === 'queued' || (this.state === 'sent' && this.upload === undefined && idempotent.has(this.request.method))
  }

  private repeat(): void {
    const { exchange } = this.request
    this.state = 'queued'
    this.controller = undefined
    exchange.set(upstreamAttempts, (exchange.get(upstreamAttempts) ?? 1) + 1)
    this.pool.queued.add(this)
    this.pool.repeat(this.options as Dispatcher.DispatchOptions, this)
  }

  private explain(error: Error): ProxyError {
    if (isProxyError(error)) return error
    const { state, upload, pool } = this
    if (upload !== undefined && (error === upload.errored || errorCode(error) === 'UND_ERR_ABORTED')) return brokenUploadError(error)
    return upstreamError(error, pool.origin, state === 'queued' || state === 'sent' ? state : 'answered')
  }
}

const chunked = /^chunked[ \t]*$/i
/** Those that change or frame the bytes, or look as if they did: an answer in one of them cannot be passed on as it is. */
const known = /chunk|gzip|deflate|compress|\bbr\b|zstd|,/i

function isChunkedCoding(field: string | string[]): boolean {
  return typeof field === 'string' && chunked.test(field)
}

function isUnknown(field: string | string[]): boolean {
  return typeof field === 'string' && !known.test(field)
}
