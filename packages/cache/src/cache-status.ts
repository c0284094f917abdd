import { combined, type HeaderMap } from '@proxy/pipeline'

/** Why a request was forwarded: the `fwd` parameter of Cache-Status (RFC 9211 section 2.2). */
export type ForwardReason = 'bypass' | 'method' | 'uri-miss' | 'vary-miss' | 'miss' | 'request' | 'stale' | 'partial'

export interface ForwardedStatus {
  readonly fwd: ForwardReason
  /** Answered from the store without waiting for the origin: `fwd` is left out then. */
  readonly hit?: boolean
  /** Status of the origin's answer, where it differs from what the client gets. */
  readonly fwdStatus?: number
  /** The answer was shared with other requests for the same thing. */
  readonly collapsed?: boolean
  /** The answer is being stored. */
  readonly stored?: boolean
  /** Seconds the answer is still fresh. */
  readonly ttl?: number
  /** Why it was not stored, or how the cache got it. */
  readonly detail?: string
}

/** The member of Cache-Status for a forwarded request. `cache` is a token. */
export function forwardedStatus(cache: string, status: ForwardedStatus): string {
  let text = status.hit ? `${cache}; hit` : `${cache}; fwd=${status.fwd}`
  if (status.fwdStatus !== undefined) text += `; fwd-status=${status.fwdStatus}`
  if (status.stored) text += '; stored'
  if (status.collapsed) text += '; collapsed'
  if (status.ttl !== undefined) text += `; ttl=${status.ttl}`
  if (status.detail !== undefined) text += `; detail=${status.detail}`
  return text
}

/** Adds this cache's member after those of caches nearer to the origin (RFC 9211 section 2). */
export function addCacheStatus(headers: HeaderMap, member: string): void {
  const before = combined(headers['cache-status'])
  headers['cache-status'] = before === undefined ? member : `${before}, ${member}`
}

/** Seconds that a response is still fresh, so that Age and it add up to the lifetime. Below 0 once it is stale. */
export function ttlSeconds(lifetimeMs: number, ageMs: number): number {
  return Math.floor(lifetimeMs / 1000) - Math.floor(ageMs / 1000)
}
