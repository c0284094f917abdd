import type { ServerResponse } from 'node:http'
import { badHead, badLength, checkLine, promisedLength } from './answer-head.ts'
import { bodyLength, discardBody, LATIN1_MAX_BYTES, toSource, WholeBody } from './body.ts'
import { cut, isClosed, isHttp2, onClosed } from './connection.ts'
import type { ProxyError } from './errors.ts'
import { createHeaders, headersToRaw } from './headers.ts'
import { stripHopByHop } from './hop-by-hop.ts'
import type { BodySink, Flow, HeaderMap, ProxyResponse } from './types.ts'

/** How the sending of an answer ended. `failed`: the body broke off; `aborted`: the client left. In both the connection was cut, so nothing passes for complete. */
export type SendOutcome = 'complete' | 'aborted' | 'failed'

/** Told once, when all bytes were handed to the socket or will never be. */
export interface SendObserver {
  sent(outcome: SendOutcome, error?: ProxyError): void
}

/**
 * Writes an answer to node:http: one header block, the body with backpressure, an abort of the body's source when the client leaves.
 * Takes over `response`. Throws `ProxyError` (502 as a rule), with nothing written and the body given up, when the head cannot be sent,
 * does not fit the body, or the body breaks off while it starts.
 */
export function sendResponse(response: ProxyResponse, outgoing: ServerResponse, method: string, observer?: SendObserver): void {
  const { body, status, headers } = response
  if (isClosed(outgoing)) {
    discardBody(body)
    observer?.sent('aborted')
    return
  }
  if (body === null || method === 'HEAD' || status === 304 || status === 204 || !(status >= 200)) {
    discardBody(body)
    // RFC 9110 section 8.6: no Content-Length in a 204; in an answer to HEAD and in a 304 it describes what is not sent.
    if (status === 204) {
      if (headers['content-length'] !== undefined) headers['content-length'] = undefined
    } else if (method === 'HEAD') {
      if (body !== null && status !== 304) headers['content-length'] ??= bodyLength(body)?.toString()
    } else if (status !== 304) headers['content-length'] = '0'
    if (headers.trailer !== undefined) headers.trailer = undefined
    writeHead(status, headers, outgoing)
    outgoing.end()
    observer?.sent('complete')
    return
  }
  if (body instanceof WholeBody || body instanceof Uint8Array) {
    const length = String(body.length)
    const promised = (headers['content-length'] ??= length)
    if (promised !== length) throw badLength(body.length, Number(promised))
    if (headers.trailer !== undefined) headers.trailer = undefined
    writeHead(status, headers, outgoing)
    if (body instanceof Uint8Array) outgoing.end(body)
    else if (body.latin1 !== undefined) outgoing.end(body.latin1, 'latin1')
    else outgoing.end(body.bytes)
    observer?.sent('complete')
    return
  }
  new ResponseSink(response, outgoing, observer).run()
}

/** Header and a small body leave in one write when the body is text: a Buffer would be a second one. */
function endWith(chunk: Uint8Array | undefined, outgoing: ServerResponse): void {
  if (chunk !== undefined && chunk.byteLength <= LATIN1_MAX_BYTES && Buffer.isBuffer(chunk)) outgoing.end(chunk.toString('latin1'), 'latin1')
  else outgoing.end(chunk)
}

function writeHead(status: number, headers: HeaderMap, outgoing: ServerResponse): void {
  if (!(status >= 200)) throw badHead(`${status} is no status of a final answer`)
  // How the message is framed is decided here alone: a second opinion in the fields would be request smuggling, backwards.
  if (headers['transfer-encoding'] !== undefined) headers['transfer-encoding'] = undefined
  try {
    if (isHttp2(outgoing)) outgoing.writeHead(status, checkedFields(headers))
    else outgoing.writeHead(status, headersToRaw(headers['content-disposition'] === undefined ? headers : dispositionFirst(headers)))
  } catch (cause) {
    if (!outgoing.headersSent) clearHead(headers, outgoing)
    throw badHead('the answer has fields that cannot be sent', cause)
  }
}

/** Node takes a Content-Disposition that follows a Content-Length for UTF-8 and writes other bytes than came; in front of it, it is left alone. */
function dispositionFirst(headers: HeaderMap): HeaderMap {
  const ordered = createHeaders()
  ordered['content-disposition'] = headers['content-disposition']
  for (const name in headers) ordered[name] = headers[name]
  return ordered
}

/** Takes back what a failed `writeHead` left on the response, so that the answer about the failure has nothing of the other one. */
function clearHead(headers: HeaderMap, outgoing: ServerResponse): void {
  for (const name in headers) if (outgoing.hasHeader(name)) outgoing.removeHeader(name)
  outgoing.sendDate = true
  if (!isHttp2(outgoing)) outgoing.statusMessage = ''
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
  private received = 0
  /** What Content-Length promises. */
  private promised: number | undefined

  constructor(response: ProxyResponse, outgoing: ServerResponse, observer: SendObserver | undefined) {
    this.response = response
    this.outgoing = outgoing
    this.observer = observer
  }

  run(): void {
    const { outgoing } = this
    const { body, headers, status } = this.response
    const source = toSource(body)
    if (source.length !== undefined) headers['content-length'] ??= String(source.length)
    const flow = source.start(this)
    this.flow = flow
    const early = this.early as Uint8Array[]
    this.early = undefined
    // Broken before anything was sent: the client can still be told so.
    if (this.failure !== undefined) throw this.failure
    if (this.finished && this.trailers === undefined) headers['content-length'] ??= String(this.received)
    try {
      this.promised = promisedLength(headers)
      if (this.promised !== undefined && (this.finished ? this.received !== this.promised : this.received > this.promised)) throw badLength(this.received, this.promised)
      // Only a chunked body can have trailers; Node refuses the announcement on any other.
      if (headers.trailer !== undefined && (this.promised !== undefined || outgoing.req.httpVersion === '1.0')) headers.trailer = undefined
      writeHead(status, headers, outgoing)
    } catch (error) {
      this.finished = true
      flow.abort()
      throw error
    }
    if (this.finished && early.length <= 1 && this.trailers === undefined) {
      endWith(early[0], outgoing)
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
    outgoing.on('drain', () => {
      if (!this.finished) flow.resume()
    })
    onClosed(outgoing, () => this.closed())
    if (writable) flow.resume()
  }

  data(chunk: Uint8Array): boolean {
    this.received += chunk.byteLength
    if (this.early !== undefined) {
      this.early.push(chunk)
      return this.early.length < 4
    }
    if (this.promised !== undefined && this.received > this.promised) {
      this.breakOff(badLength(this.received, this.promised))
      this.flow?.abort()
      return false
    }
    return this.outgoing.write(chunk)
  }

  end(trailers?: HeaderMap): void {
    this.trailers = trailers
    if (this.early !== undefined) this.finished = true
    else if (this.promised !== undefined && this.received !== this.promised) this.breakOff(badLength(this.received, this.promised))
    else this.finish()
  }

  error(error: ProxyError): void {
    if (this.early !== undefined) {
      this.finished = true
      this.failure = error
    } else this.breakOff(error)
  }

  private finish(): void {
    const { outgoing, trailers } = this
    this.finished = true
    if (trailers !== undefined) addTrailers(trailers, outgoing)
    outgoing.end()
    this.observer?.sent('complete')
  }

  /** No last chunk, no clean end: the client must see that the body is not whole. */
  private breakOff(error: ProxyError): void {
    this.finished = true
    cut(this.outgoing, error)
    this.observer?.sent('failed', error)
  }

  private closed(): void {
    if (this.finished) return
    this.finished = true
    this.flow?.abort()
    this.observer?.sent('aborted')
  }
}

/** For HTTP/2, whose fields node:http does not check, and which refuses those of an HTTP/1 connection. */
function checkedFields(headers: HeaderMap): Record<string, string | string[]> {
  const fields: Record<string, string | string[]> = {}
  const kept = stripHopByHop(headers)
  for (const name in kept) {
    const value = kept[name]
    if (value === undefined) continue
    for (const line of typeof value === 'object' ? value : [value]) checkLine(name, line)
    fields[name] = value
  }
  return fields
}

function addTrailers(trailers: HeaderMap, outgoing: ServerResponse): void {
  try {
    const fields = checkedFields(trailers)
    // RFC 9110 section 6.5.1: nothing that frames or routes the message comes after it.
    for (const name of ['content-length', 'host', 'trailer']) delete fields[name]
    outgoing.addTrailers(fields as Record<string, string>)
  } catch {
    // Malformed trailers are left out (RFC 9110 section 6.5.1 lets us); the body before them is whole.
  }
}
