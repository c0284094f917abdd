import type { HeaderMap } from '@proxy/pipeline'
import { type CacheControl, parseAge, parseCacheControl } from './cache-control.ts'
import { parseHttpDate } from './http-date.ts'
import type { CacheMeta } from './store.ts'
import { targetedControl } from './targeted.ts'
import { ruleFits, type TtlRule } from './ttl-rules.ts'

/** What decides how long a response is fresh, beside the response. */
export interface FreshnessPolicy {
  readonly rules: readonly TtlRule[]
  /** Names of fields that take the place of Cache-Control for this cache, the most specific first (RFC 9213). Lower-case. */
  readonly targets: readonly string[]
  /** Lifetime of responses that say nothing of theirs, as a share of the time since they were last modified; undefined: none. */
  readonly heuristic: Heuristic | undefined
  /** What the origin says of caching does not count. */
  readonly ignoresOrigin: boolean
  /** Bounds of a lifetime that no rule has set, from when the response arrived. Milliseconds. The lower one is for content alone. */
  readonly minMs: number
  readonly maxMs: number
}

export interface Heuristic {
  /** RFC 9111 section 4.2.2: 0.1 is typical. */
  readonly fraction: number
  readonly maxMs: number
}

/** What is known of a response when its lifetime is asked for. */
export interface Timed {
  readonly status: number
  readonly headers: Readonly<HeaderMap>
  /** When the answer's header arrived, wall clock. */
  readonly responseTime: number
  /** corrected_initial_age of RFC 9111 section 4.2.3. */
  readonly initialAgeMs: number
}

/** Statuses that may be stored without explicit freshness (RFC 9110 section 15.1), 206 aside: parts are not stored. */
const heuristicallyCacheable: ReadonlySet<number> = new Set([200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])

/** The directives that count for this cache: those of the first targeted field that can be read, else Cache-Control's. */
export function responseControl(headers: Readonly<HeaderMap>, { ignoresOrigin, targets }: Pick<FreshnessPolicy, 'ignoresOrigin' | 'targets'>): CacheControl | undefined {
  if (ignoresOrigin) return undefined
  for (const name of targets) {
    const value = headers[name]
    const control = value === undefined ? undefined : targetedControl(value)
    if (control !== undefined) return control
  }
  return parseCacheControl(headers['cache-control'])
}

/** freshness_lifetime of RFC 9111 section 4.2.1, or that of the rule that fits; undefined when nobody gave one. Counted from the response's origin. */
export function explicitLifetimeMs(response: Timed, control: CacheControl | undefined, policy: FreshnessPolicy): number | undefined {
  const { headers } = response
  for (const rule of policy.rules) if (ruleFits(rule, response.status, headers)) return rule.ttlMs > 0 ? response.initialAgeMs + untilRetry(response, rule.ttlMs) : 0
  const said = saidLifetimeMs(response, control, policy)
  return said === undefined ? undefined : bounded(said, response, policy)
}

/** What the origin asks to wait before it is asked again, where that is shorter: it may be well by then. */
function untilRetry({ headers, responseTime, status }: Timed, ttlMs: number): number {
  const retryAfter = status === 429 || status === 503 ? headers['retry-after'] : undefined
  if (typeof retryAfter !== 'string') return ttlMs
  const ms = /^\d{1,9}$/.test(retryAfter) ? Number(retryAfter) * 1000 : (parseHttpDate(retryAfter) ?? Number.POSITIVE_INFINITY) - responseTime
  return Math.max(0, Math.min(ttlMs, ms))
}

/** Statuses of content, for which a lower bound counts. */
const content: ReadonlySet<number> = new Set([200, 203, 300, 301, 308])

function bounded(lifetime: number, { initialAgeMs, status }: Timed, { maxMs, minMs }: FreshnessPolicy): number {
  if (lifetime > initialAgeMs + maxMs) return initialAgeMs + maxMs
  return minMs > 0 && content.has(status) ? Math.max(lifetime, initialAgeMs + minMs) : lifetime
}

function saidLifetimeMs(response: Timed, control: CacheControl | undefined, policy: FreshnessPolicy): number | undefined {
  const { headers } = response
  if (control?.sMaxage !== undefined) return control.sMaxage * 1000
  if (control?.maxAge !== undefined) return control.maxAge * 1000
  if (headers.expires === undefined || control?.isTargeted || policy.ignoresOrigin) return undefined
  const expires = parseHttpDate(headers.expires)
  // An Expires that is no date, like "0", is in the past (RFC 9111 section 5.3).
  if (expires === undefined) return 0
  return Math.max(0, expires - (parseHttpDate(headers.date) ?? response.responseTime))
}

/** Whether a response of this status may be kept although it says nothing of its lifetime. */
export function allowsHeuristic(status: number, control: CacheControl | undefined): boolean {
  return heuristicallyCacheable.has(status) || control?.public === true
}

/** Lifetime that is guessed where nobody gave one (RFC 9111 section 4.2.2). */
export function heuristicLifetimeMs(response: Timed, control: CacheControl | undefined, policy: FreshnessPolicy): number {
  if (!allowsHeuristic(response.status, control)) return 0
  return bounded(policy.heuristic === undefined ? 0 : guessedLifetimeMs(response, policy.heuristic), response, policy)
}

function guessedLifetimeMs(response: Timed, heuristic: Heuristic): number {
  const modified = parseHttpDate(response.headers['last-modified'])
  if (modified === undefined) return 0
  const unchangedMs = (parseHttpDate(response.headers.date) ?? response.responseTime) - modified
  return Math.max(0, Math.min(heuristic.maxMs, unchangedMs * heuristic.fraction))
}

/** How long a stored response is fresh, counted from its origin. Milliseconds. */
export function lifetimeMs(meta: CacheMeta, policy: FreshnessPolicy): number {
  if (meta.ttlMs !== undefined) return meta.initialAgeMs + meta.ttlMs
  const control = responseControl(meta.headers, policy)
  if (control?.noCache) return 0
  return explicitLifetimeMs(meta, control, policy) ?? heuristicLifetimeMs(meta, control, policy)
}

/** Whether a stored response may be used without asking the origin, for a request with these directives (RFC 9111 section 5.2.1). */
export function isFresh(lifetime: number, ageMs: number, control: CacheControl | undefined): boolean {
  if (control === undefined) return ageMs < lifetime
  if (control.noCache) return false
  if (control.maxAge !== undefined && ageMs > control.maxAge * 1000) return false
  // "No less than": the last moment counts, other than for freshness itself.
  if (control.minFresh !== undefined && ageMs + control.minFresh * 1000 > lifetime) return false
  return ageMs < lifetime
}

/** corrected_initial_age of RFC 9111 section 4.2.3, at the time the answer arrived. `delayMs` is how long it took, by a clock that nobody sets. */
export function initialAgeMs(headers: Readonly<HeaderMap>, delayMs: number, responseTime: number): number {
  const date = parseHttpDate(headers.date)
  const apparent = date === undefined ? 0 : Math.max(0, responseTime - date)
  const corrected = parseAge(headers.age) * 1000 + Math.max(0, delayMs)
  return Math.max(apparent, corrected)
}

/** current_age of RFC 9111 section 4.2.3. */
export function currentAgeMs(meta: CacheMeta, wallMs: number): number {
  return meta.initialAgeMs + Math.max(0, wallMs - meta.responseTime)
}
