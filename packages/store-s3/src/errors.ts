import { isProxyError, ProxyError } from '@proxy/pipeline'

/** Why the object storage did not do what was asked. Named values: also labels of metrics. */
export type S3FailureKind =
  /** 401, 403 or no credentials at all. */
  | 'auth'
  | 'no-bucket'
  /** 429 or 503: it asks to be left alone. */
  | 'throttled'
  /** No answer within the deadline, or silence inside a body. */
  | 'timeout'
  /** Refused, reset, not resolved, broken off. */
  | 'unreachable'
  | 'server-error'
  /** Its clock and ours differ by more than it accepts; the SDK has corrected itself, the next request works. */
  | 'clock-skew'
  /** Another 4xx: about this request alone. */
  | 'refused'
  | 'not-found'
  /** The object is not the one that was meant: If-Match failed. */
  | 'changed'
  | 'range'
  /** 501: it does not know a header or operation. */
  | 'unsupported'
  /** The object is not what was written. */
  | 'broken'
  /** The caller gave up. */
  | 'aborted'
  /** The breaker is open: nothing was asked. */
  | 'unavailable'
  | 'closed'

const messages: Readonly<Record<S3FailureKind, string>> = {
  auth: 'the object storage refused the credentials',
  'no-bucket': 'the bucket does not exist',
  throttled: 'the object storage asks for fewer requests',
  timeout: 'the object storage did not answer in time',
  unreachable: 'the object storage cannot be reached',
  'server-error': 'the object storage failed',
  'clock-skew': 'the clock of the object storage differs',
  refused: 'the object storage refused the request',
  'not-found': 'the object does not exist',
  changed: 'the object was replaced meanwhile',
  range: 'the object is shorter than the part asked for',
  unsupported: 'the object storage does not know this operation',
  broken: 'the stored object is broken',
  aborted: 'the request was given up',
  unavailable: 'the object storage is not asked at the moment',
  closed: 'the store is closed'
}

/**
 * Every failure of this package: `code` is `S3_` and the kind (`S3_NO_BUCKET`), `message` a fixed sentence. Neither it nor its cause holds text of the
 * service's answer, a credential, an address or a name of a bucket or object.
 */
export class S3Error extends ProxyError {
  readonly kind: S3FailureKind

  constructor(kind: S3FailureKind, cause?: unknown) {
    super(messages[kind], { code: `S3_${kind.replace('-', '_').toUpperCase()}`, status: 502, source: 'proxy', cause })
    this.kind = kind
  }
}

/** What may be known of an error of the SDK: names, numbers and codes. Its own error holds the request, the answer and at times the key id. */
class S3ErrorCause extends Error {
  override readonly name: string
  readonly status: number | undefined
  readonly code: string | undefined
  readonly requestId: string | undefined

  constructor(name: string, status: number | undefined, code: string | undefined, requestId: string | undefined) {
    super([name, status, code].filter((part) => part !== undefined).join(' '))
    this.name = name
    this.status = status
    this.code = code
    this.requestId = requestId
  }
}

interface SdkError {
  readonly name?: unknown
  readonly code?: unknown
  readonly $metadata?: { readonly httpStatusCode?: number; readonly requestId?: string; readonly clockSkewCorrected?: boolean }
}

const plain = (value: unknown): string | undefined => (typeof value === 'string' && /^[\w.-]{1,64}$/.test(value) ? value : undefined)

/** Anything that a request to the storage threw, as an `S3Error`. */
export function toS3Error(thrown: unknown): S3Error {
  if (isProxyError(thrown) && 'kind' in thrown) return thrown as S3Error
  const error = (typeof thrown === 'object' && thrown !== null ? thrown : {}) as SdkError
  const name = plain(error.name) ?? 'Error'
  const status = error.$metadata?.httpStatusCode
  const code = plain(error.code)
  return new S3Error(kindOf(name, status, code, error.$metadata?.clockSkewCorrected === true), new S3ErrorCause(name, status, code, plain(error.$metadata?.requestId)))
}

function kindOf(name: string, status: number | undefined, code: string | undefined, skewCorrected: boolean): S3FailureKind {
  if (name === 'NoSuchBucket') return 'no-bucket'
  if (name === 'RequestTimeTooSkewed' || (skewCorrected && status === 403)) return 'clock-skew'
  if (name === 'SlowDown' || status === 429 || status === 503) return 'throttled'
  if (status === 401 || status === 403 || /Credentials/.test(name)) return 'auth'
  if (status === 404) return 'not-found'
  if (status === 412) return 'changed'
  if (status === 416) return 'range'
  if (status === 501) return 'unsupported'
  // The SDK calls a reset connection a timeout too.
  if (code === 'ECONNRESET' || code === 'EPIPE') return 'unreachable'
  if (name === 'TimeoutError' || code === 'ETIMEDOUT') return 'timeout'
  if (name === 'AbortError') return 'aborted'
  if (status === undefined || status < 400) return 'unreachable'
  return status >= 500 ? 'server-error' : 'refused'
}
