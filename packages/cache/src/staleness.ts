import type { CacheControl } from './cache-control.ts'

/** How stale a response may be served where the origin says nothing of it. Milliseconds beyond its lifetime. */
export interface StalePolicy {
  /** While it is being revalidated in the background. */
  readonly whileRevalidateMs: number
  /** When no answer of the origin is to be had: refused, reset, cut, timed out. */
  readonly ifUnreachableMs: number
  /** When the origin answers 500, 502, 503 or 504. */
  readonly ifErrorMs: number
}

/** Statuses that stale-if-error is about (RFC 5861 section 4). */
const errors: ReadonlySet<number> = new Set([500, 502, 503, 504])

export function isServerError(status: number): boolean {
  return errors.has(status)
}

/**
 * Whether the response may never be served stale (RFC 9111 section 4.2.4). s-maxage implies proxy-revalidate, but an origin that names a time beside it for
 * which the response may be served stale (RFC 5861) has said what it wants.
 */
export function forbidsStale(control: CacheControl | undefined): boolean {
  return control !== undefined && (control.noCache || control.mustRevalidate || control.proxyRevalidate || (control.sMaxage !== undefined && explicitStaleMs(control) === 0))
}

/** The longest time that the response itself allows to be served stale. */
export function explicitStaleMs(control: CacheControl | undefined): number {
  return control === undefined ? 0 : Math.max(control.staleWhileRevalidate ?? 0, control.staleIfError ?? 0) * 1000
}

/** How stale it may be while it is revalidated. */
export function whileRevalidateMs(control: CacheControl | undefined, policy: StalePolicy): number {
  if (forbidsStale(control)) return 0
  if (control?.staleWhileRevalidate !== undefined) return control.staleWhileRevalidate * 1000
  // Allowed explicitly for errors alone.
  return control?.sMaxage !== undefined ? 0 : policy.whileRevalidateMs
}

/** How stale a response may be when the origin fails: with a status, or (undefined) with no answer at all. */
export function ifErrorMs(status: number, control: CacheControl | undefined, failure: number | undefined, policy: StalePolicy): number {
  if (forbidsStale(control)) return 0
  if (control?.staleIfError !== undefined) return control.staleIfError * 1000
  // What is missing or has failed is not worth keeping for this.
  if (control?.sMaxage !== undefined || status >= 400) return 0
  return failure === undefined ? policy.ifUnreachableMs : policy.ifErrorMs
}

/** How long a stale response is worth keeping for any of this. */
export function keptStaleMs(status: number, control: CacheControl | undefined, policy: StalePolicy): number {
  return Math.max(whileRevalidateMs(control, policy), ifErrorMs(status, control, undefined, policy), ifErrorMs(status, control, 503, policy))
}

/** Whether a client says that it takes a response of this age so long beyond its lifetime (RFC 9111 section 5.2.1.2). max-age beside it still limits the age, and min-fresh asks for what is not stale. */
export function clientTakesStale(requested: CacheControl | undefined, response: CacheControl | undefined, ageMs: number, staleMs: number): boolean {
  if (requested?.maxStale === undefined || requested.noCache || forbidsStale(response)) return false
  if (requested.maxAge !== undefined && ageMs > requested.maxAge * 1000) return false
  if (requested.minFresh !== undefined && staleMs + requested.minFresh * 1000 > 0) return false
  return staleMs <= requested.maxStale * 1000
}
