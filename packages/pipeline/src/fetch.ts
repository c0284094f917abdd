import { badHead, badLength, checkLine, promisedLength } from './answer-head.ts'
import { bodyLength, discardBody, WholeBody } from './body.ts'
import { Context } from './context.ts'
import { checkProxyName, errorResponse } from './errors.ts'
import { Exchange } from './exchange.ts'
import { isForwardingClaim } from './forwarding.ts'
import { appendHeader, createHeaders } from './headers.ts'
import { connectionOptions, isHopByHop } from './hop-by-hop.ts'
import { checkAuthority, checkTarget } from './raw-request.ts'
import type { Body, Handler, HeaderMap, ProxyRequest, ProxyResponse } from './types.ts'
import { toWebStream, WebUpload } from './web-body.ts'

export interface ToFetchOptions {
  /** Name of this proxy in Proxy-Status, a token. Default `proxy`. */
  readonly proxyName?: string
  /** The client's address, which a web Request does not know. Default: empty. */
  readonly remoteAddress?: (request: Request) => string
}

/**
 * A handler as a fetch function, for hosts that speak web Request and Response (Hono, Deno, Bun, workers, tests). Never rejects.
 * Costs more per byte than `toNode`; trailers and interim answers cannot be expressed. Throws TypeError at once for options that make no sense.
 */
export function toFetch(handler: Handler, options: ToFetchOptions = {}): (request: Request) => Promise<Response> {
  checkProxyName(options.proxyName)
  return (webRequest) => serveWeb(handler, webRequest, options, options.remoteAddress?.(webRequest) ?? '')
}

/** One exchange between a web Request and a handler. Never rejects. */
export async function serveWeb(handler: Handler, webRequest: Request, options: { readonly proxyName?: string }, remoteAddress: string): Promise<Response> {
  const { method } = webRequest
  try {
    const response = await handler(new WebRequest(webRequest, remoteAddress))
    if (!webRequest.signal.aborted) return toWeb(response, method)
    // Nobody waits for it any more; a host that does not look would leave the body, and what it holds, open.
    discardBody(response.body)
    return new Response(null, { status: 499 })
  } catch (error) {
    return toWeb(errorResponse(error, options), method)
  }
}

/** Scheme, authority and the bytes of path and query, cut out of the URL's text. */
const absoluteUrl = /^(https?):\/\/([^/?#]*)([^#]*)/i

/** A web Request as the pipeline sees it. */
class WebRequest implements ProxyRequest {
  readonly method: string
  readonly target: string
  readonly authority: string
  readonly scheme: 'http' | 'https'
  readonly headers: HeaderMap
  readonly remoteAddress: string
  readonly exchange: Exchange = new Exchange()
  private readonly webRequest: Request
  private upload: WebUpload | null | undefined

  /** Throws `ProxyError` 400 when the host or the target may not be forwarded. */
  constructor(webRequest: Request, remoteAddress: string) {
    const headers = createHeaders()
    const listed = connectionOptions(webRequest.headers.get('connection') ?? undefined)
    for (const [name, value] of webRequest.headers) {
      if (name === 'host' || isHopByHop(name) || isForwardingClaim(name) || listed?.has(name)) continue
      appendHeader(headers, name, value)
    }
    const [, scheme = 'http', authority = '', target = ''] = absoluteUrl.exec(webRequest.url) ?? []
    this.webRequest = webRequest
    this.method = webRequest.method
    this.target = checkTarget(target.startsWith('/') ? target : `/${target}`)
    this.authority = checkAuthority(webRequest.headers.get('host') ?? authority)
    this.scheme = scheme.toLowerCase() === 'https' ? 'https' : 'http'
    this.headers = headers
    this.remoteAddress = remoteAddress
  }

  get httpVersion(): '1.1' {
    return '1.1'
  }
  get peerAddress(): string {
    return this.remoteAddress
  }
  get body(): Body {
    if (this.upload === undefined) {
      const stream = this.webRequest.body as ReadableStream<Uint8Array> | null
      this.upload = stream === null ? null : new WebUpload(stream, this.headers['content-length'])
    }
    return this.upload
  }
  get signal(): AbortSignal {
    return this.webRequest.signal
  }
  get context(): Context {
    return Context.empty
  }
}

/** Takes over `response`. Throws `ProxyError` (502 as a rule), with the body given up, when a web Response cannot say it or the body breaks off while it starts. */
function toWeb(response: ProxyResponse, method: string): Response {
  const { status, headers } = response
  let { body } = response
  if (method === 'HEAD' || status === 204 || status === 304) {
    // RFC 9110 section 8.6: no Content-Length in a 204; in an answer to HEAD and in a 304 it describes what is not sent.
    if (status === 204) headers['content-length'] = undefined
    else if (body !== null && status !== 304) headers['content-length'] ??= bodyLength(body)?.toString()
    discardBody(body)
    body = null
  } else if (body === null || status === 205) {
    discardBody(body)
    body = null
    headers['content-length'] = '0'
  } else headers['content-length'] ??= bodyLength(body)?.toString()
  let fields: HeaderMap | [string, string][]
  let promised: number | undefined
  try {
    fields = webHeaders(status, headers)
    promised = promisedLength(headers)
  } catch (error) {
    discardBody(body)
    throw error
  }
  return new Response(webBody(body, promised), { status, headers: fields as Record<string, string> })
}

/** A plain object, which hosts pass on as it is, or pairs where a field has several lines. */
function webHeaders(status: number, headers: HeaderMap): HeaderMap | [string, string][] {
  if (!(status >= 200 && status <= 599)) throw badHead(`${status} is no status of a final answer`)
  const fields = createHeaders()
  const pairs: [string, string][] = []
  let isRepeated = false
  for (const name in headers) {
    const value = headers[name]
    // How the message is framed is the host's.
    if (value === undefined || isHopByHop(name) || name === 'trailer') continue
    for (const line of typeof value === 'object' ? value : [value]) {
      checkLine(name, line)
      if (fields[name] !== undefined) isRepeated = true
      fields[name] = line
      pairs.push([name, line])
    }
  }
  return isRepeated ? pairs : fields
}

function webBody(body: Body, promised: number | undefined): Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array> | null {
  if (body === null) return null
  const bytes = body instanceof WholeBody ? body.toBytes() : body
  if (!(bytes instanceof Uint8Array)) return toWebStream(body, promised)
  if (bytes.byteLength !== promised) throw badLength(bytes.byteLength, promised as number)
  return bytes as Uint8Array<ArrayBuffer>
}
