import type { IncomingMessage, ServerResponse } from 'node:http'
import { Context } from './context.ts'
import { clientAborted } from './errors.ts'
import { Exchange } from './exchange.ts'
import type { TrustedProxies } from './forwarding.ts'
import { checkRawRequest, type RawRequest } from './raw-request.ts'
import type { Body, BodySink, BodySource, Flow, HeaderMap, ProxyRequest } from './types.ts'

/** A request of node:http (or its HTTP/2 compatibility layer) as the pipeline sees it. */
export class NodeRequest implements ProxyRequest {
  readonly exchange: Exchange = new Exchange()
  private readonly incoming: IncomingMessage
  private readonly outgoing: ServerResponse
  private readonly raw: RawRequest
  private controller: AbortController | undefined

  /** Throws `ProxyError` 400 when the raw message may not be forwarded. */
  constructor(incoming: IncomingMessage, outgoing: ServerResponse, trusted: TrustedProxies) {
    this.incoming = incoming
    this.outgoing = outgoing
    this.raw = checkRawRequest(incoming, trusted)
  }

  get method(): string {
    return this.incoming.method as string
  }
  get target(): string {
    return this.raw.target
  }
  get authority(): string {
    return this.raw.authority
  }
  get scheme(): 'http' | 'https' {
    return this.raw.scheme
  }
  get httpVersion(): '1.0' | '1.1' | '2' {
    const version = this.incoming.httpVersion
    return version === '1.1' ? '1.1' : version === '1.0' ? '1.0' : '2'
  }
  get headers(): HeaderMap {
    return this.raw.headers
  }
  get body(): Body {
    return this.raw.hasBody ? new IncomingBody(this.incoming, this.outgoing, this.raw.headers['content-length']) : null
  }
  get remoteAddress(): string {
    return this.raw.remoteAddress
  }
  get peerAddress(): string {
    return this.raw.peerAddress
  }
  get context(): Context {
    return Context.empty
  }
  get signal(): AbortSignal {
    if (this.controller === undefined) {
      const controller = new AbortController()
      const { outgoing } = this
      this.controller = controller
      if (outgoing.destroyed) controller.abort(clientAborted())
      else
        outgoing.once('close', () => {
          if (!outgoing.writableFinished) controller.abort(clientAborted())
        })
    }
    return this.controller.signal
  }

  get onInterim(): (status: number, headers: HeaderMap) => void {
    return (status, headers) => this.sendInterim(status, headers)
  }

  private sendInterim(status: number, headers: HeaderMap): void {
    const { outgoing } = this
    // HTTP/1.0 has no interim answers, and none may follow the final one (RFC 9110 section 15.2).
    if (outgoing.headersSent || outgoing.destroyed || this.httpVersion === '1.0') return
    const lines: Record<string, string | string[]> = {}
    for (const name in headers) {
      const value = headers[name]
      if (value !== undefined) lines[name] = value
    }
    try {
      // Node before 26 has only the two of its own, and writeEarlyHints wants a Link.
      const sender = outgoing as { writeInformation?: (status: number, headers: Record<string, string | string[]>) => void }
      if (sender.writeInformation !== undefined) sender.writeInformation(status, lines)
      else if (status === 102) outgoing.writeProcessing()
      else if (status === 103 && lines.link !== undefined) outgoing.writeEarlyHints(lines)
    } catch {
      // An interim answer that Node finds malformed is left out: the final one does not depend on it.
    }
  }
}

/** The request body. 100 Continue is sent when it is first read: an upload that no layer wants is then never sent. */
class IncomingBody implements BodySource {
  readonly length: number | undefined
  private readonly incoming: IncomingMessage
  private readonly outgoing: ServerResponse

  constructor(incoming: IncomingMessage, outgoing: ServerResponse, contentLength: string | string[] | undefined) {
    this.incoming = incoming
    this.outgoing = outgoing
    this.length = typeof contentLength === 'string' ? Number(contentLength) : undefined
  }

  start(sink: BodySink): Flow {
    const { incoming, outgoing } = this
    if (awaitsContinue(incoming) && !outgoing.headersSent) outgoing.writeContinue()
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
      if (finish()) sink.end()
    }
    const onClose = (): void => {
      if (finish()) sink.error(clientAborted())
    }
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

/** Whether the client waits for a 100 that node:http has not sent by itself (it does where the server has no `checkContinue` listener). */
function awaitsContinue(incoming: IncomingMessage): boolean {
  if (incoming.headers.expect?.toLowerCase() !== '100-continue') return false
  const server = (incoming.socket as { server?: { listenerCount(event: string): number } }).server
  return server !== undefined && server.listenerCount('checkContinue') > 0
}
