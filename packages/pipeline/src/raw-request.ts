import type { IncomingMessage } from 'node:http'
import type { TLSSocket } from 'node:tls'
import { ProxyError } from './errors.ts'
import { isForwardingClaim, plainAddress, type TrustedProxies } from './forwarding.ts'
import { appendHeader, createHeaders } from './headers.ts'
import { connectionOptions, isHopByHop } from './hop-by-hop.ts'
import type { HeaderMap } from './types.ts'

/** What an HTTP message says once its raw lines have been checked. */
export interface RawRequest {
  readonly target: string
  readonly authority: string
  readonly headers: HeaderMap
  readonly peerAddress: string
  readonly remoteAddress: string
  readonly scheme: 'http' | 'https'
  readonly hasBody: boolean
}

/** Path and query as RFC 9112 section 3.2.1 has them: visible ASCII, no fragment, no backslash (which some origins read as a slash). */
const originForm = /^\/[!-"$-[\]-~]*$/
/** uri-host with an optional port (RFC 9110 section 7.2); no userinfo, no path. */
const hostField = /^(?:[a-z0-9._~!$&'()*+,;=%-]+|\[[0-9a-f:.]+\])(?::\d{0,5})?$/

function bad(what: string, status = 400): ProxyError {
  return new ProxyError(what, { code: 'CLIENT_BAD_REQUEST', status, source: 'client', proxyStatus: 'http_request_error' })
}

/** The checks and cuts made before a request exists: one authority, a plain target, no fields of the connection, no claims of untrusted clients. Throws a 400. */
export function checkRawRequest(incoming: IncomingMessage, trusted: TrustedProxies): RawRequest {
  const raw = incoming.rawHeaders
  const peerAddress = plainAddress(incoming.socket.remoteAddress)
  const isTrusted = trusted.trusts(peerAddress)
  const headers = createHeaders()
  let host: string | undefined
  let connection: string | string[] | undefined
  let hasTransferEncoding = false
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = (raw[i] as string).toLowerCase()
    const value = raw[i + 1] as string
    if (name === 'host' || name === ':authority') {
      if (host !== undefined && host !== value.toLowerCase()) throw bad('more than one Host')
      if (host !== undefined && name === 'host' && incoming.httpVersionMajor < 2) throw bad('more than one Host line')
      host = value.toLowerCase()
      continue
    }
    if (name.charCodeAt(0) === 58) continue
    if (isHopByHop(name)) {
      if (name === 'connection') connection = connection === undefined ? value : `${connection},${value}`
      else if (name === 'transfer-encoding') hasTransferEncoding = true
      continue
    }
    if (!isTrusted && isForwardingClaim(name)) continue
    if (headers[name] === undefined) headers[name] = value
    else appendHeader(headers, name, value)
  }
  const listed = connectionOptions(connection)
  if (listed !== undefined) for (const name of listed) delete headers[name]

  let target = incoming.url ?? ''
  if (!originForm.test(target) && !(target === '*' && incoming.method === 'OPTIONS')) {
    const absolute = /^https?:\/\/([^/?#]*)(.*)$/i.exec(target)
    if (absolute === null) throw bad('the request target is no path')
    // RFC 9112 section 3.2.2: the authority of an absolute target is the one that counts; a Host that says something else is an attempt to have two readings.
    const authority = (absolute[1] as string).toLowerCase()
    if (host !== undefined && host !== authority) throw bad('Host and request target name different authorities')
    host = authority
    target = (absolute[2] as string).startsWith('/') ? (absolute[2] as string) : `/${absolute[2] as string}`
    if (!originForm.test(target)) throw bad('the request target is no path')
  }
  if (host === undefined) {
    if (incoming.httpVersion !== '1.0') throw bad('no Host')
    host = ''
  } else if (!hostField.test(host)) throw bad('Host is no host')

  const forwardedProto = isTrusted ? headers['x-forwarded-proto'] : undefined
  return {
    target,
    authority: host,
    headers,
    peerAddress,
    remoteAddress: isTrusted ? trusted.clientAddress(peerAddress, headers['x-forwarded-for']) : peerAddress,
    scheme: forwardedProto === 'https' || forwardedProto === 'http' ? forwardedProto : (incoming.socket as TLSSocket).encrypted ? 'https' : 'http',
    hasBody: hasTransferEncoding || (headers['content-length'] !== undefined && headers['content-length'] !== '0') || (incoming.httpVersionMajor >= 2 && !endsAfterHeaders(incoming))
  }
}

/** HTTP/2 says by a flag on the HEADERS frame that no body follows. */
function endsAfterHeaders(incoming: IncomingMessage): boolean {
  return (incoming as unknown as { stream?: { endAfterHeaders?: boolean } }).stream?.endAfterHeaders === true
}
