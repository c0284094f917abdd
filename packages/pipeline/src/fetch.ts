import { Readable } from 'node:stream'
import type { ReadableStream as NodeReadableStream } from 'node:stream/web'
import { discardBody, toSource, WholeBody } from './body.ts'
import { errorResponse } from './errors.ts'
import { isForwardingClaim } from './forwarding.ts'
import { appendHeader, createHeaders, headersToRaw } from './headers.ts'
import { connectionOptions, isHopByHop } from './hop-by-hop.ts'
import { createRequest } from './request.ts'
import type { Body, BodySink, Flow, Handler, HeaderMap, ProxyRequest, ProxyResponse } from './types.ts'

export interface ToFetchOptions {
  /** Name of this proxy in Proxy-Status. Default `proxy`. */
  readonly proxyName?: string
  /** The client's address, which a web Request does not know. Default: empty. */
  readonly remoteAddress?: (request: Request) => string
}

/**
 * A handler as a fetch function, for hosts that speak web Request and Response (Hono, Deno, Bun, workers, tests).
 * Costs more per byte than `toNode`; trailers and interim answers cannot be expressed.
 */
export function toFetch(handler: Handler, options: ToFetchOptions = {}): (request: Request) => Promise<Response> {
  return (webRequest) => serveWeb(handler, webRequest, options, options.remoteAddress?.(webRequest) ?? '')
}

/** One exchange between a web Request and a handler. Never rejects. */
export async function serveWeb(handler: Handler, webRequest: Request, options: { readonly proxyName?: string }, remoteAddress: string): Promise<Response> {
  let response: ProxyResponse
  try {
    response = await handler(fromWeb(webRequest, remoteAddress))
  } catch (error) {
    response = errorResponse(error, options)
  }
  return toWeb(response, webRequest.method)
}

/** Scheme, authority and the bytes of path and query, cut out of the URL's text. */
const absoluteUrl = /^(https?):\/\/([^/?#]*)([^#]*)/i

function fromWeb(webRequest: Request, remoteAddress: string): ProxyRequest {
  const headers = createHeaders()
  const connection = webRequest.headers.get('connection') ?? undefined
  const listed = connectionOptions(connection)
  for (const [name, value] of webRequest.headers) {
    if (name === 'host' || isHopByHop(name) || isForwardingClaim(name) || listed?.has(name)) continue
    appendHeader(headers, name, value)
  }
  const [, scheme = 'http', authority = '', target = '/'] = absoluteUrl.exec(webRequest.url) ?? []
  return createRequest({
    method: webRequest.method,
    scheme: scheme.toLowerCase() === 'https' ? 'https' : 'http',
    authority: (webRequest.headers.get('host') ?? authority).toLowerCase(),
    target: target.startsWith('/') ? target : `/${target}`,
    headers,
    body: webRequest.body === null ? null : Readable.fromWeb(webRequest.body as NodeReadableStream),
    remoteAddress,
    signal: webRequest.signal
  })
}

function toWeb(response: ProxyResponse, method: string): Response {
  const { status, headers } = response
  let body: Body = response.body
  if (method === 'HEAD' || status === 204 || status === 304) {
    discardBody(body)
    body = null
  }
  return new Response(toWebBody(body), { status, headers: webHeaders(headers) })
}

function webHeaders(headers: HeaderMap): [string, string][] {
  const flat = headersToRaw(headers)
  const list: [string, string][] = []
  for (let i = 0; i < flat.length; i += 2) list.push([flat[i] as string, flat[i + 1] as string])
  return list
}

function toWebBody(body: Body): Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array> | null {
  if (body === null) return null
  if (body instanceof Uint8Array) return body as Uint8Array<ArrayBuffer>
  if (body instanceof WholeBody) return body.toBytes() as Uint8Array<ArrayBuffer>
  const source = toSource(body)
  let flow: Flow | undefined
  let controller: ReadableStreamDefaultController<Uint8Array>
  const sink: BodySink = {
    data(chunk) {
      controller.enqueue(chunk)
      return (controller.desiredSize ?? 0) > 0
    },
    end: () => controller.close(),
    error: (error) => controller.error(error)
  }
  return new ReadableStream<Uint8Array>(
    {
      start(given) {
        controller = given
      },
      pull() {
        if (flow === undefined) flow = source.start(sink)
        else flow.resume()
      },
      cancel() {
        if (flow === undefined) source.discard()
        else flow.abort()
      }
    },
    { highWaterMark: 64 * 1024, size: (chunk) => chunk?.byteLength ?? 0 }
  )
}
