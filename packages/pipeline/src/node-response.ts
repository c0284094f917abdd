import type { ServerResponse } from 'node:http'
import { discardBody, toSource, WholeBody } from './body.ts'
import { ProxyError } from './errors.ts'
import { headersToRaw } from './headers.ts'
import type { BodySink, Flow, HeaderMap, ProxyResponse } from './types.ts'

/** How the sending of an answer ended. `failed`: the body broke off; `aborted`: the client left. In both the connection was cut, so nothing passes for complete. */
export type SendOutcome = 'complete' | 'aborted' | 'failed'

/** Told once, when all bytes were handed to the socket or will never be. */
export interface SendObserver {
  sent(outcome: SendOutcome, error?: ProxyError): void
}

/**
 * Writes an answer to node:http: one header block, the body with backpressure, an abort of the body's source when the client leaves.
 * Takes over `response`. Throws `ProxyError` 502, with nothing written and the body discarded, when the header fields cannot be sent.
 */
export function sendResponse(response: ProxyResponse, outgoing: ServerResponse, method: string, observer?: SendObserver): void {
  const { body, status, headers } = response
  if (outgoing.destroyed) {
    discardBody(body)
    observer?.sent('aborted')
    return
  }
  if (body === null || method === 'HEAD' || status === 304 || status === 204 || status < 200) {
    discardBody(body)
    // RFC 9110 section 8.6: no Content-Length in a 204; in an answer to HEAD and in a 304 it describes what is not sent.
    if (status === 204) delete headers['content-length']
    else if (body === null && method !== 'HEAD' && status !== 304) headers['content-length'] = '0'
    writeHead(response, outgoing)
    outgoing.end()
    observer?.sent('complete')
    return
  }
  if (body instanceof WholeBody || body instanceof Uint8Array) {
    const whole = body instanceof WholeBody ? body : undefined
    headers['content-length'] ??= String(whole === undefined ? (body as Uint8Array).byteLength : whole.length)
    writeHead(response, outgoing)
    if (whole?.latin1 !== undefined) outgoing.end(whole.latin1, 'latin1')
    else outgoing.end(whole === undefined ? body : whole.bytes)
    observer?.sent('complete')
    return
  }
  new ResponseSink(response, outgoing, observer).run()
}

function writeHead(response: ProxyResponse, outgoing: ServerResponse): void {
  try {
    outgoing.writeHead(response.status, headersToRaw(response.headers))
  } catch (cause) {
    discardBody(response.body)
    throw new ProxyError('the answer has fields that cannot be sent', { code: 'UPSTREAM_BAD_HEADERS', status: 502, source: 'upstream', proxyStatus: 'http_response_header_section_size', cause })
  }
}

/** Streams a body to a response. What the source delivers while it starts is sent together with the header. */
class ResponseSink implements BodySink {
  private readonly response: ProxyResponse
  private readonly outgoing: ServerResponse
  private readonly observer: SendObserver | undefined
  private flow: Flow | undefined
  /** Chunks that came while the source was starting. */
  private early: Uint8Array[] | undefined = []
  private finished = false
  private failure: ProxyError | undefined
  private trailers: HeaderMap | undefined

  constructor(response: ProxyResponse, outgoing: ServerResponse, observer: SendObserver | undefined) {
    this.response = response
    this.outgoing = outgoing
    this.observer = observer
  }

  run(): void {
    const { outgoing, response } = this
    const source = toSource(response.body)
    if (source.length !== undefined) response.headers['content-length'] ??= String(source.length)
    const flow = source.start(this)
    this.flow = flow
    const early = this.early as Uint8Array[]
    this.early = undefined
    // Broken before anything was sent: the client can still be told so.
    if (this.failure !== undefined) throw this.failure
    try {
      outgoing.writeHead(response.status, headersToRaw(response.headers))
    } catch (cause) {
      flow.abort()
      throw new ProxyError('the answer has fields that cannot be sent', { code: 'UPSTREAM_BAD_HEADERS', status: 502, source: 'upstream', proxyStatus: 'http_protocol_error', cause })
    }
    if (this.finished && early.length <= 1 && this.trailers === undefined) {
      outgoing.end(early[0])
      this.observer?.sent('complete')
      return
    }
    let writable = true
    for (const chunk of early) writable = outgoing.write(chunk)
    if (this.finished) {
      this.finish()
      return
    }
    if (early.length === 0) outgoing.flushHeaders()
    outgoing.on('drain', () => flow.resume())
    outgoing.on('close', () => this.closed())
    if (writable) flow.resume()
  }

  data(chunk: Uint8Array): boolean {
    if (this.early === undefined) return this.outgoing.write(chunk)
    this.early.push(chunk)
    return this.early.length < 4
  }

  end(trailers?: HeaderMap): void {
    this.finished = true
    this.trailers = trailers
    if (this.early === undefined) this.finish()
  }

  error(error: ProxyError): void {
    this.finished = true
    this.failure = error
    if (this.early !== undefined) return
    // No last chunk, no clean end: the client must see that the body is not whole.
    this.outgoing.destroy()
    this.observer?.sent('failed', error)
  }

  private finish(): void {
    const { outgoing, trailers } = this
    if (trailers !== undefined) outgoing.addTrailers(pairs(trailers))
    outgoing.end()
    this.observer?.sent('complete')
  }

  private closed(): void {
    if (this.finished) return
    this.finished = true
    this.flow?.abort()
    this.observer?.sent('aborted')
  }
}

function pairs(headers: HeaderMap): [string, string][] {
  const flat = headersToRaw(headers)
  const list: [string, string][] = []
  for (let i = 0; i < flat.length; i += 2) list.push([flat[i] as string, flat[i + 1] as string])
  return list
}
