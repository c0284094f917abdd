import type { IncomingMessage, ServerResponse } from 'node:http'
import { type AbortListener, type AbortSource, abortSource } from './abort.ts'
import { checkLine } from './answer-head.ts'
import { isClosed, onClosed } from './connection.ts'
import { Context } from './context.ts'
import { clientAborted, ProxyError } from './errors.ts'
import { Exchange } from './exchange.ts'
import type { TrustedProxies } from './forwarding.ts'
import { headersToRaw } from './headers.ts'
import { stripHopByHop } from './hop-by-hop.ts'
import { RawRequest } from './raw-request.ts'
import type { Body, BodySink, BodySource, Flow, HeaderMap, ProxyRequest } from './types.ts'

/** A request of node:http (or its HTTP/2 compatibility layer) as the pipeline sees it. */
export class NodeRequest extends RawRequest implements ProxyRequest, AbortSource {
  readonly exchange: Exchange = new Exchange()
  private readonly incoming: IncomingMessage
  private readonly outgoing: ServerResponse
  private controller: AbortController | undefined
  private abortListeners: AbortListener[] | undefined
  private upload: IncomingBody | undefined

  /** Throws `ProxyError` 400 or 501 when the raw message may not be forwarded. */
  constructor(incoming: IncomingMessage, outgoing: ServerResponse, trusted: TrustedProxies) {
    super(incoming, trusted)
    this.incoming = incoming
    this.outgoing = outgoing
  }

  get method(): string {
    return this.incoming.method as string
  }
  get httpVersion(): '1.0' | '1.1' | '2' {
    const version = this.incoming.httpVersion
    return version === '1.1' ? '1.1' : version === '1.0' ? '1.0' : '2'
  }
  get body(): Body {
    if (!this.hasBody) return null
    this.upload ??= new IncomingBody(this.incoming, this.outgoing, this.headers['content-length'])
    return this.upload
  }
  get context(): Context {
    return Context.empty
  }
  get signal(): AbortSignal {
    if (this.controller === undefined) {
      const controller = new AbortController()
      this.controller = controller
      if (this.aborted) controller.abort(clientAborted())
      else this.addAbortListener({ handleEvent: () => controller.abort(clientAborted()) })
    }
    return this.controller.signal
  }

  get [abortSource](): AbortSource {
    return this
  }
  get aborted(): boolean {
    return isClosed(this.outgoing) && this.leftEarly()
  }

  addAbortListener(listener: AbortListener): void {
    if (this.abortListeners === undefined) {
      this.abortListeners = [listener]
      onClosed(this.outgoing, () => this.closed())
    } else this.abortListeners.push(listener)
  }

  removeAbortListener(listener: AbortListener): void {
    const listeners = this.abortListeners
    if (listeners === undefined) return
    const at = listeners.lastIndexOf(listener)
    if (at === listeners.length - 1) listeners.length = Math.max(0, at)
    else if (at !== -1) listeners.splice(at, 1)
  }

  private closed(): void {
    const listeners = this.abortListeners as AbortListener[]
    if (listeners.length === 0 || !this.leftEarly()) return
    this.abortListeners = []
    for (const listener of listeners) listener.handleEvent()
  }

  /** A response closes also when all is well: work that goes on behind it is not to be stopped by that. (HTTP/2 counts one that was reset as finished.) */
  private leftEarly(): boolean {
    return !this.outgoing.writableFinished || (this.httpVersion === '2' && this.incoming.aborted)
  }

  get onInterim(): (status: number, headers: HeaderMap) => void {
    return (status, headers) => this.sendInterim(status, headers)
  }

  private sendInterim(status: number, headers: HeaderMap): void {
    const { outgoing } = this
    // HTTP/1.0 has no interim answers, and none may follow the final one (RFC 9110 section 15.2).
    if (outgoing.headersSent || isClosed(outgoing) || this.httpVersion === '1.0') return
    // 100 is between two hops and is ours to send; 101 would give the connection away.
    if (status < 102 || status > 199) return
    const fields = stripHopByHop(headers)
    delete fields['content-length']
    const lines = headersToRaw(fields)
    try {
      // Node before 26 writes them as they are, line breaks too.
      for (let i = 0; i < lines.length; i += 2) checkLine(lines[i] as string, lines[i + 1] as string)
      // Node before 26 has only the two of its own, and writeEarlyHints wants a Link.
      const sender = outgoing as { writeInformation?: (status: number, headers: HeaderMap | string[]) => void }
      if (sender.writeInformation !== undefined) sender.writeInformation(status, this.httpVersion === '2' ? fields : lines)
      else if (status === 102) outgoing.writeProcessing()
      else if (status === 103 && fields.link !== undefined) outgoing.writeEarlyHints(fields as Record<string, string | string[]>)
    } catch {
      // A malformed interim answer is left out: the final one does not depend on it.
    }
  }
}

/** The request body. 100 Continue is sent when it is first read: an upload that no layer wants is then never sent. */
class IncomingBody implements BodySource {
  readonly length: number | undefined
  private readonly incoming: IncomingMessage
  private readonly outgoing: ServerResponse
  private started = false

  constructor(incoming: IncomingMessage, outgoing: ServerResponse, contentLength: string | string[] | undefined) {
    this.incoming = incoming
    this.outgoing = outgoing
    this.length = typeof contentLength === 'string' ? Number(contentLength) : undefined
  }

  start(sink: BodySink): Flow {
    const { incoming, outgoing } = this
    if (this.started || incoming.readableDidRead) {
      // By another layer, or by the host (a body parser): what is left of it would pass for the whole.
      sink.error(new ProxyError('the request body was read before', { code: 'REQUEST_BODY_USED', status: 500, source: 'proxy', proxyStatus: 'proxy_internal_error' }))
      return { resume() {}, abort() {} }
    }
    this.started = true
    if (awaitsContinue(incoming) && !outgoing.headersSent && !isClosed(outgoing)) outgoing.writeContinue()
    let done = false
    const onData = (chunk: Buffer): void => {
      if (!sink.data(chunk)) incoming.pause()
    }
    const finish = (): boolean => {
      if (done) return false
      done = true
      incoming.off('data', onData)
      incoming.off('end', onEnd)
      incoming.off('close', onClose)
      return true
    }
    const onEnd = (): void => {
      // HTTP/2 ends an upload that was reset like one that is complete.
      if (incoming.aborted) onClose()
      else if (finish()) sink.end()
    }
    const onClose = (): void => {
      if (finish()) sink.error(clientAborted())
    }
    // Stays: an abort that nobody listens to would end the process.
    incoming.on('error', onClose)
    incoming.on('end', onEnd)
    incoming.on('close', onClose)
    incoming.on('data', onData)
    if (incoming.readableEnded) onEnd()
    else if (incoming.destroyed) onClose()
    return {
      resume: () => {
        if (!done) incoming.resume()
      },
      // Not destroyed: the answer still has to leave on this connection. What is left of the upload is read and forgotten.
      abort: () => {
        if (finish()) incoming.resume()
      }
    }
  }

  /** node:http drains what nobody read once the answer has been sent. */
  discard(): void {}
}

/** As node:http reads it, so that what made it emit `checkContinue` is answered here. */
const continueExpectation = /(?:^|\W)100-continue(?:$|\W)/i

/** Whether the client waits for a 100 that node:http has not sent by itself (it does where the server has no `checkContinue` listener). */
function awaitsContinue(incoming: IncomingMessage): boolean {
  const { expect } = incoming.headers
  // RFC 9110 section 10.1.1: an HTTP/1.0 client is not sent a 100.
  if (expect === undefined || !continueExpectation.test(expect) || incoming.httpVersion === '1.0') return false
  const server = (incoming.socket as { server?: { listenerCount(event: string): number } }).server
  return server !== undefined && server.listenerCount('checkContinue') > 0
}
