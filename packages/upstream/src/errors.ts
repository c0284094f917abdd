import { clientAborted, ProxyError } from '@proxy/pipeline'

interface Kind {
  readonly status: number
  readonly code: string
  /** RFC 9209 section 2.3. */
  readonly proxyStatus: string
}

/** What undici and node:net report, and what it means for the client. */
const kinds: Readonly<Record<string, Kind>> = {
  ECONNREFUSED: { status: 502, code: 'UPSTREAM_CONNECT_REFUSED', proxyStatus: 'connection_refused' },
  ENOTFOUND: { status: 502, code: 'UPSTREAM_DNS', proxyStatus: 'dns_error' },
  EAI_AGAIN: { status: 502, code: 'UPSTREAM_DNS', proxyStatus: 'dns_timeout' },
  EHOSTUNREACH: { status: 502, code: 'UPSTREAM_UNREACHABLE', proxyStatus: 'destination_ip_unroutable' },
  ENETUNREACH: { status: 502, code: 'UPSTREAM_UNREACHABLE', proxyStatus: 'destination_ip_unroutable' },
  ETIMEDOUT: { status: 504, code: 'UPSTREAM_CONNECT_TIMEOUT', proxyStatus: 'connection_timeout' },
  UND_ERR_CONNECT_TIMEOUT: { status: 504, code: 'UPSTREAM_CONNECT_TIMEOUT', proxyStatus: 'connection_timeout' },
  UND_ERR_HEADERS_TIMEOUT: { status: 504, code: 'UPSTREAM_HEADERS_TIMEOUT', proxyStatus: 'http_response_timeout' },
  UND_ERR_BODY_TIMEOUT: { status: 504, code: 'UPSTREAM_BODY_TIMEOUT', proxyStatus: 'http_response_timeout' },
  UND_ERR_HEADERS_OVERFLOW: { status: 502, code: 'UPSTREAM_HEADERS_TOO_LARGE', proxyStatus: 'http_response_header_section_size' },
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: { status: 502, code: 'UPSTREAM_INCOMPLETE', proxyStatus: 'http_response_incomplete' },
  ECONNRESET: { status: 502, code: 'UPSTREAM_CONNECTION_LOST', proxyStatus: 'connection_terminated' },
  EPIPE: { status: 502, code: 'UPSTREAM_CONNECTION_LOST', proxyStatus: 'connection_terminated' },
  UND_ERR_SOCKET: { status: 502, code: 'UPSTREAM_CONNECTION_LOST', proxyStatus: 'connection_terminated' }
}

const protocolError: Kind = { status: 502, code: 'UPSTREAM_PROTOCOL', proxyStatus: 'http_protocol_error' }
const tlsError: Kind = { status: 502, code: 'UPSTREAM_TLS', proxyStatus: 'tls_certificate_error' }
const otherError: Kind = { status: 502, code: 'UPSTREAM_FAILED', proxyStatus: 'destination_unavailable' }

/**
 * An undici error as a `ProxyError`. `sent` says whether the request had been put on a connection: before that, nothing of it was processed and
 * it may go elsewhere.
 */
export function upstreamError(error: Error, origin: string, sent: boolean): ProxyError {
  const code = errorCode(error)
  // An upload that broke off because its client left carries the client's error.
  if (code === 'CLIENT_ABORTED') return clientAborted(error)
  const kind = kinds[code] ?? (code.startsWith('HPE_') ? protocolError : isTlsCode(code) ? tlsError : otherError)
  return new ProxyError(`${origin}: ${error.message || code}`, { code: kind.code, status: kind.status, source: 'upstream', proxyStatus: kind.proxyStatus, retryable: !sent, cause: error })
}

/** The code of an error, of its cause, or of the last address that was tried. */
export function errorCode(error: Error): string {
  const { code } = error as { code?: unknown }
  if (typeof code === 'string' && code !== 'UND_ERR_SOCKET') return code
  if (error instanceof AggregateError && error.errors.length > 0) return errorCode(error.errors[error.errors.length - 1] as Error)
  if (error.cause instanceof Error) return errorCode(error.cause)
  return typeof code === 'string' ? code : ''
}

function isTlsCode(code: string): boolean {
  return code.startsWith('ERR_TLS') || code.startsWith('ERR_SSL') || code.startsWith('CERT_') || code.includes('CERT') || code.startsWith('UNABLE_TO_')
}
