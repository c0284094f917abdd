import { ProxyError } from '@proxy/pipeline'
import { errors } from 'undici'

interface Kind {
  readonly status: number
  readonly code: string
  /** RFC 9209 section 2.3. */
  readonly proxyStatus: string
}

const refused: Kind = { status: 502, code: 'UPSTREAM_CONNECT_REFUSED', proxyStatus: 'connection_refused' }
const dns: Kind = { status: 502, code: 'UPSTREAM_DNS', proxyStatus: 'dns_error' }
const unreachable: Kind = { status: 502, code: 'UPSTREAM_UNREACHABLE', proxyStatus: 'destination_ip_unroutable' }
const connectTimeout: Kind = { status: 504, code: 'UPSTREAM_CONNECT_TIMEOUT', proxyStatus: 'connection_timeout' }
const headersTimeout: Kind = { status: 504, code: 'UPSTREAM_HEADERS_TIMEOUT', proxyStatus: 'http_response_timeout' }
const bodyTimeout: Kind = { status: 504, code: 'UPSTREAM_BODY_TIMEOUT', proxyStatus: 'http_response_timeout' }
const headersTooLarge: Kind = { status: 502, code: 'UPSTREAM_HEADERS_TOO_LARGE', proxyStatus: 'http_response_header_section_size' }
const incomplete: Kind = { status: 502, code: 'UPSTREAM_INCOMPLETE', proxyStatus: 'http_response_incomplete' }
const lost: Kind = { status: 502, code: 'UPSTREAM_CONNECTION_LOST', proxyStatus: 'connection_terminated' }
const protocol: Kind = { status: 502, code: 'UPSTREAM_PROTOCOL', proxyStatus: 'http_protocol_error' }
const certificate: Kind = { status: 502, code: 'UPSTREAM_TLS', proxyStatus: 'tls_certificate_error' }
const tls: Kind = { status: 502, code: 'UPSTREAM_TLS', proxyStatus: 'tls_protocol_error' }
const other: Kind = { status: 502, code: 'UPSTREAM_FAILED', proxyStatus: 'destination_unavailable' }

/** What undici and node:net report, and what it means for the client. */
const kinds: Readonly<Record<string, Kind>> = {
  ECONNREFUSED: refused,
  ENOTFOUND: dns,
  EHOSTUNREACH: unreachable,
  EHOSTDOWN: unreachable,
  ENETUNREACH: unreachable,
  ENETDOWN: unreachable,
  ETIMEDOUT: connectTimeout,
  UND_ERR_CONNECT_TIMEOUT: connectTimeout,
  UND_ERR_HEADERS_OVERFLOW: headersTooLarge,
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: incomplete,
  ECONNRESET: lost,
  ECONNABORTED: lost,
  EPIPE: lost,
  UND_ERR_SOCKET: lost
}

/** How far the exchange had come: waiting for a connection, sent but not answered, or answered with a header. */
export type Stage = 'queued' | 'sent' | 'answered'

/** An undici error as a `ProxyError`. Before the request was put on a connection nothing of it was processed, and it may go elsewhere. */
export function upstreamError(error: Error, origin: string, stage: Stage): ProxyError {
  const code = errorCode(error)
  switch (code) {
    case 'UND_ERR_DESTROYED':
    case 'UND_ERR_CLOSED':
      return closedError(error)
    case 'UND_ERR_INVALID_ARG':
    case 'UND_ERR_NOT_SUPPORTED':
    case 'UND_ERR_REQ_CONTENT_LENGTH_MISMATCH':
      return new ProxyError(`the request cannot be sent: ${error.message}`, { code: 'UPSTREAM_REQUEST_INVALID', status: 500, source: 'proxy', proxyStatus: 'proxy_internal_error', cause: error })
    default:
      return failure(kindOf(code, error, stage), `${origin}: ${error.message || code}`, stage === 'queued', error)
  }
}

function kindOf(code: string, error: Error, stage: Stage): Kind {
  // undici says so of an answer that nobody asked for, of a 100, and of a 101.
  if (code === 'UND_ERR_SOCKET' && error.message.startsWith('bad ')) return protocol
  if (error instanceof errors.HTTPParserError) {
    // undici gives it the bytes that came, which are nothing for a log, and no code.
    delete (error as { data?: unknown }).data
    return stage === 'answered' && error.message.includes('EOF') ? incomplete : protocol
  }
  const kind = kinds[code] ?? (code.startsWith('EAI_') ? dns : isCertificateCode(code) ? certificate : code.startsWith('ERR_TLS') || code.startsWith('ERR_SSL') ? tls : other)
  if (stage === 'answered' && kind === lost) return incomplete
  // Said of a header that contradicts itself, too.
  if (stage === 'sent' && kind === incomplete) return protocol
  // Of a connection that stood, the same code says that its other end has gone silent.
  return kind === connectTimeout && stage !== 'queued' ? (stage === 'answered' ? incomplete : lost) : kind
}

function failure(kind: Kind, message: string, retryable: boolean, cause?: unknown): ProxyError {
  return new ProxyError(message, { code: kind.code, status: kind.status, source: 'upstream', proxyStatus: kind.proxyStatus, retryable, cause })
}

/** The code of an error, of its cause, or of the last address that was tried. */
export function errorCode(error: Error): string {
  const { code } = error as { code?: unknown }
  if (typeof code === 'string' && code !== 'UND_ERR_SOCKET') return code
  if (error instanceof AggregateError && error.errors.length > 0) return errorCode(error.errors[error.errors.length - 1] as Error)
  if (error.cause instanceof Error) return errorCode(error.cause)
  return typeof code === 'string' ? code : ''
}

/** Whether a connection ended under the request, as one does that the origin closed when it had been idle. */
export function isConnectionLoss(error: Error): boolean {
  return kinds[errorCode(error)] === lost
}

/** OpenSSL's names for what is wrong with a certificate, and Node's. */
function isCertificateCode(code: string): boolean {
  return code.includes('CERT') || code.startsWith('UNABLE_TO_') || code.startsWith('CRL_') || certificateCodes.has(code)
}

const certificateCodes: ReadonlySet<string> = new Set(['HOSTNAME_MISMATCH', 'INVALID_CA', 'INVALID_PURPOSE', 'PATH_LENGTH_EXCEEDED'])

export function connectTimeoutError(origin: string, ms: number): ProxyError {
  return failure(connectTimeout, `${origin}: no connection within ${ms} ms`, true)
}

export function headersTimeoutError(origin: string, ms: number): ProxyError {
  return failure(headersTimeout, `${origin}: no header within ${ms} ms`, false)
}

export function bodyTimeoutError(origin: string, ms: number): ProxyError {
  return failure(bodyTimeout, `${origin}: nothing more of the body within ${ms} ms`, false)
}

export function incompleteError(origin: string): ProxyError {
  return failure(incomplete, `${origin}: the connection was reset before the end of the body`, false)
}

export function protocolError(origin: string, what: string): ProxyError {
  return failure(protocol, `${origin}: ${what}`, false)
}

/** The limit is ours: it says nothing about the health of the origin. */
export function busyError(origin: string, what: string): ProxyError {
  return new ProxyError(`${origin}: ${what}`, { code: 'UPSTREAM_BUSY', status: 503, source: 'proxy', proxyStatus: 'connection_limit_reached', retryable: true })
}

export function closedError(cause?: unknown): ProxyError {
  return new ProxyError('upstream() was closed', { code: 'UPSTREAM_CLOSED', status: 503, source: 'proxy', proxyStatus: 'destination_unavailable', cause })
}

export function noTargetError(what: string, cause?: unknown): ProxyError {
  return new ProxyError(what, { code: 'UPSTREAM_NO_TARGET', status: 500, source: 'proxy', proxyStatus: 'proxy_configuration_error', cause })
}

/** What undici cannot send: CONNECT, and OPTIONS of the server as a whole. */
export function unsupportedError(what: string): ProxyError {
  return new ProxyError(what, { code: 'UPSTREAM_UNSUPPORTED', status: 501, source: 'proxy', proxyStatus: 'http_request_denied' })
}

export function brokenUploadError(cause: Error): ProxyError {
  return new ProxyError(`the request body broke off: ${cause.message}`, { code: 'REQUEST_BODY_BROKEN', status: 400, source: 'client', proxyStatus: 'http_request_error', cause })
}
