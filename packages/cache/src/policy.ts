import { combined, type HeaderMap } from '@proxy/pipeline'
import { type CacheControl, parseAge, parseCacheControl } from './cache-control.ts'
import { hasValidator } from './conditional.ts'
import { parseHttpDate } from './http-date.ts'
import type { CacheMeta } from './store.ts'

/** A lifetime set by configuration for responses of some status and content type. The first rule that fits wins. */
export interface TtlRule {
  /** Statuses it is for: `200`, `'2xx'`, or several. Default: 200, 203, 300, 301, 308 (responses that are content). */
  readonly status?: StatusPattern | readonly StatusPattern[]
  /** Content types it is for: `image/*`, `application/json`, `*\/*+json`. Default: all, also none. */
  readonly contentType?: string | readonly string[]
  /** Takes the place of max-age, s-maxage and Expires; counted from when the response arrived, whatever its Age. no-store, no-cache, private and Set-Cookie still hold. Milliseconds. */
  readonly ttlMs: number
}
export type StatusPattern = number | `${1 | 2 | 3 | 4 | 5}xx` | `${number}`

const contentStatuses: readonly StatusPattern[] = [200, 203, 300, 301, 308]

/** Statuses that may be stored without explicit freshness (RFC 9110 section 15.1), 206 aside: parts are not stored. */
const heuristicallyCacheable: ReadonlySet<number> = new Set([200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])

/** Why a response is not stored, as Cache-Status tells it. `refused`: the store has no room for it. */
export type NotStoredReason = 'method' | 'status' | 'no-store' | 'private' | 'authorization' | 'set-cookie' | 'vary-any' | 'no-freshness' | 'too-large' | 'refused' | 'request-no-store'

export type Storability = { readonly store: true; readonly lifetimeMs: number } | { readonly store: false; readonly reason: NotStoredReason }

export interface StorabilityInput {
  readonly method: string
  /** The request carried Authorization, or was authenticated here. */
  readonly authorized: boolean
  readonly requestNoStore: boolean
  readonly status: number
  readonly headers: Readonly<HeaderMap>
  /** When the answer's header arrived, wall clock. */
  readonly responseTime: number
  /** corrected_initial_age of RFC 9111 section 4.2.3. */
  readonly initialAgeMs: number
}

/** Whether a shared cache may store this response, and for how long it is fresh. RFC 9111 section 3. */
export function storability(input: StorabilityInput, rules: readonly TtlRule[]): Storability {
  const { headers, status } = input
  if (input.method !== 'GET') return { store: false, reason: 'method' }
  if (input.requestNoStore) return { store: false, reason: 'request-no-store' }
  if (status < 200 || status === 206 || status === 304) return { store: false, reason: 'status' }
  const control = parseCacheControl(headers['cache-control'])
  if (control?.noStore) return { store: false, reason: 'no-store' }
  if (control?.private) return { store: false, reason: 'private' }
  if (headers['set-cookie'] !== undefined) return { store: false, reason: 'set-cookie' }
  // https://www.rfc-editor.org/rfc/rfc9111#section-3.5
  if (input.authorized && !(control?.public || control?.mustRevalidate || control?.sMaxage !== undefined)) return { store: false, reason: 'authorization' }
  if (combined(headers.vary)?.includes('*')) return { store: false, reason: 'vary-any' }
  const explicit = explicitLifetimeMs(input, control, rules)
  if (explicit === undefined && !heuristicallyCacheable.has(status) && !control?.public) return { store: false, reason: 'status' }
  const lifetimeMs = control?.noCache ? 0 : (explicit ?? 0)
  // Never fresh and never to be confirmed: keeping it would serve nobody.
  if (lifetimeMs <= 0 && !hasValidator(headers)) return { store: false, reason: 'no-freshness' }
  return { store: true, lifetimeMs }
}

/** freshness_lifetime of RFC 9111 section 4.2.1, or that of the rule that fits; undefined when nobody gave one. */
function explicitLifetimeMs(
  response: Pick<StorabilityInput, 'status' | 'headers' | 'responseTime' | 'initialAgeMs'>,
  control: CacheControl | undefined,
  rules: readonly TtlRule[]
): number | undefined {
  const { headers } = response
  for (const rule of rules) if (ruleFits(rule, response.status, headers)) return rule.ttlMs > 0 ? response.initialAgeMs + rule.ttlMs : 0
  if (control?.sMaxage !== undefined) return control.sMaxage * 1000
  if (control?.maxAge !== undefined) return control.maxAge * 1000
  if (headers.expires === undefined) return undefined
  const expires = parseHttpDate(headers.expires)
  // An Expires that is no date, like "0", is in the past (RFC 9111 section 5.3).
  if (expires === undefined) return 0
  return Math.max(0, expires - (parseHttpDate(headers.date) ?? response.responseTime))
}

/** How long a stored response is fresh, counted from its origin. Milliseconds. */
export function lifetimeMs(meta: CacheMeta, rules: readonly TtlRule[]): number {
  const control = parseCacheControl(meta.headers['cache-control'])
  if (control?.noCache) return 0
  return explicitLifetimeMs(meta, control, rules) ?? 0
}

/** Whether a stored response may be used without asking the origin, for a request with these directives (RFC 9111 section 5.2.1). */
export function isFresh(lifetime: number, ageMs: number, control: CacheControl | undefined): boolean {
  if (control === undefined) return ageMs < lifetime
  if (control.noCache) return false
  if (control.maxAge !== undefined && ageMs > control.maxAge * 1000) return false
  return ageMs + (control.minFresh ?? 0) * 1000 < lifetime
}

/** corrected_initial_age of RFC 9111 section 4.2.3, at the time the answer arrived. */
export function initialAgeMs(headers: Readonly<HeaderMap>, requestTime: number, responseTime: number): number {
  const date = parseHttpDate(headers.date)
  const apparent = date === undefined ? 0 : Math.max(0, responseTime - date)
  const corrected = parseAge(headers.age) * 1000 + Math.max(0, responseTime - requestTime)
  return Math.max(apparent, corrected)
}

/** current_age of RFC 9111 section 4.2.3. */
export function currentAgeMs(meta: CacheMeta, wallMs: number): number {
  return meta.initialAgeMs + Math.max(0, wallMs - meta.responseTime)
}

function ruleFits(rule: TtlRule, status: number, headers: Readonly<HeaderMap>): boolean {
  const statuses = rule.status ?? contentStatuses
  if (!(typeof statuses === 'object' ? statuses.some((pattern) => statusFits(pattern, status)) : statusFits(statuses, status))) return false
  if (rule.contentType === undefined) return true
  const type = combined(headers['content-type'])?.split(';', 1)[0]?.trim().toLowerCase()
  if (type === undefined) return false
  return typeof rule.contentType === 'object' ? rule.contentType.some((pattern) => typeFits(pattern, type)) : typeFits(rule.contentType, type)
}

/** `404` or `5xx`. */
export function statusFits(pattern: StatusPattern, status: number): boolean {
  const text = String(pattern)
  return text.endsWith('xx') ? Math.floor(status / 100) === Number(text[0]) : Number(text) === status
}

/** `image/*`, `application/json`, `*\/*+json`. */
function typeFits(pattern: string, type: string): boolean {
  const [wantMain = '', wantSub = ''] = pattern.toLowerCase().split('/')
  const [main = '', sub = ''] = type.split('/')
  if (wantMain !== '*' && wantMain !== main) return false
  if (wantSub === '*') return true
  return wantSub.startsWith('*+') ? sub.endsWith(wantSub.slice(1)) : wantSub === sub
}
