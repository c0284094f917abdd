import type { IncomingMessage } from 'node:http'
import type { TLSSocket } from 'node:tls'
import { ProxyError } from './errors.ts'
import { isForwardingClaim, plainAddress, type TrustedProxies } from './forwarding.ts'
import { appendHeader, createHeaders } from './headers.ts'
import { connectionOptions, isHopByHop } from './hop-by-hop.ts'
import type { HeaderMap } from './types.ts'

/** Path and query as RFC 9112 section 3.2.1 has them: visible ASCII, no fragment, no backslash (which some origins read as a slash). */
const originForm = /^\/[!-"$-[\]-~]*$/
/** uri-host with an optional port (RFC 9110 section 7.2); no userinfo, no path. */
const hostField = /^(?:[a-z0-9._~!$&'()*+,;=%-]+|\[[0-9a-f:.]+\])(?::\d{0,5})?$/
const absoluteForm = /^https?:\/\/([^/?#]*)(.*)$/i

function bad(what: string, status = 400): ProxyError {
  return new ProxyError(what, { code: 'CLIENT_BAD_REQUEST', status, source: 'client', proxyStatus: 'http_request_error' })
}

/** `authority` in lower case. Throws a 400 when it is no host with an optional port. */
export function checkAuthority(authority: string): string {
  const lowerCase = authority.toLowerCase()
  if (!hostField.test(lowerCase)) throw bad('Host is no host')
  return lowerCase
}

/** Throws a 400 when `target` is no path with an optional query. */
export function checkTarget(target: string): string {
  if (!originForm.test(target)) throw bad('the request target is no path')
  return target
}

/**
 * The head of a message of node:http (or its HTTP/2 compatibility layer) after the checks and cuts made before a request exists:
 * one authority, a plain target, one framing, no fields of the connection, no claims of untrusted clients.
 */
export class RawRequest {
  readonly target: string
  readonly authority: string
  readonly scheme: 'http' | 'https'
  readonly headers: HeaderMap
  readonly remoteAddress: string
  readonly peerAddress: string
  readonly hasBody: boolean

  /** Throws `ProxyError` 400, or 501 for a transfer coding other than chunked. */
  constructor(incoming: IncomingMessage, trusted: TrustedProxies) {
    const raw = incoming.rawHeaders
    const isHttp2 = incoming.httpVersionMajor >= 2
    const peerAddress = plainAddress(incoming.socket.remoteAddress)
    const isTrusted = trusted.trusts(peerAddress)
    const headers = createHeaders()
    let host: string | undefined
    let connection: string | undefined
    let transferEncoding: string | undefined
    for (let i = 0; i + 1 < raw.length; i += 2) {
      const name = (raw[i] as string).toLowerCase()
      const value = raw[i + 1] as string
      if (name === 'host' || name === ':authority') {
        // HTTP/2 may say it twice, as :authority and as Host, but not two things (RFC 9113 section 8.3.1).
        if (host !== undefined && (!isHttp2 || host !== value.toLowerCase())) throw bad('more than one Host')
        host = value.toLowerCase()
        continue
      }
      if (name.charCodeAt(0) === 58) continue
      if (isHopByHop(name)) {
        if (name === 'connection') connection = connection === undefined ? value : `${connection},${value}`
        else if (name === 'transfer-encoding') transferEncoding = transferEncoding === undefined ? value : `${transferEncoding},${value}`
        continue
      }
      if (!isTrusted && isForwardingClaim(name)) continue
      if (headers[name] === undefined) headers[name] = value
      else appendHeader(headers, name, value)
    }
    const listed = connectionOptions(connection)
    if (listed !== undefined) for (const name of listed) delete headers[name]

    const length = headers['content-length']
    if (transferEncoding !== undefined) checkTransferEncoding(transferEncoding, incoming, length)
    if (typeof length === 'object') throw bad('more than one Content-Length')
    // RFC 9113 section 8.2.3: HTTP/2 may split Cookie into crumbs; elsewhere it is one line.
    if (isHttp2 && typeof headers.cookie === 'object') headers.cookie = headers.cookie.join('; ')

    let target = incoming.url ?? ''
    if (!originForm.test(target) && !(target === '*' && incoming.method === 'OPTIONS')) {
      const absolute = isHttp2 ? null : absoluteForm.exec(target)
      if (absolute === null) throw bad('the request target is no path')
      // RFC 9112 section 3.2.2: the authority of an absolute target is the one that counts; a Host that says something else is an attempt to have two readings.
      const authority = (absolute[1] as string).toLowerCase()
      if (host !== undefined && host !== authority) throw bad('Host and request target name different authorities')
      host = authority
      const rest = absolute[2] as string
      // RFC 9112 section 3.2.4: OPTIONS of an absolute target without path or query asks about the server.
      if (rest === '' && incoming.method === 'OPTIONS') target = '*'
      else target = checkTarget(rest.startsWith('/') ? rest : `/${rest}`)
    }
    if (host === undefined) {
      if (incoming.httpVersion !== '1.0') throw bad('no Host')
      host = ''
    } else if (!hostField.test(host)) throw bad('Host is no host')

    const forwardedProto = isTrusted ? headers['x-forwarded-proto'] : undefined
    this.target = target
    this.authority = host
    this.scheme = forwardedProto === 'https' || forwardedProto === 'http' ? forwardedProto : (incoming.socket as TLSSocket).encrypted ? 'https' : 'http'
    this.headers = headers
    this.remoteAddress = isTrusted ? trusted.clientAddress(peerAddress, headers['x-forwarded-for']) : peerAddress
    this.peerAddress = peerAddress
    this.hasBody = transferEncoding !== undefined || (length !== undefined && length !== '0') || (isHttp2 && !endsAfterHeaders(incoming))
  }
}

/** RFC 9112 section 6.1: what makes the end of a body a matter of opinion is refused, also where the parser was told to be lenient. */
function checkTransferEncoding(transferEncoding: string, incoming: IncomingMessage, length: HeaderMap[string]): void {
  if (incoming.httpVersion === '1.0') throw bad('Transfer-Encoding in an HTTP/1.0 request')
  if (transferEncoding.toLowerCase() !== 'chunked') throw bad('a transfer coding other than chunked', 501)
  if (length !== undefined) throw bad('both Transfer-Encoding and Content-Length')
}

/** HTTP/2 says by a flag on the HEADERS frame that no body follows. */
function endsAfterHeaders(incoming: IncomingMessage): boolean {
  return (incoming as unknown as { stream?: { endAfterHeaders?: boolean } }).stream?.endAfterHeaders === true
}
