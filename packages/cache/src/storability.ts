import { combined } from '@proxy/pipeline'
import { hasValidator } from './conditional.ts'
import { allowsHeuristic, explicitLifetimeMs, type FreshnessPolicy, heuristicLifetimeMs, responseControl, type Timed } from './freshness.ts'
import { explicitStaleMs } from './staleness.ts'
import { isOfType } from './ttl-rules.ts'

/** Why a response is not stored, as Cache-Status tells it. `refused`: the store has no room for it. */
export type NotStoredReason =
  | 'method'
  | 'status'
  | 'no-store'
  | 'private'
  | 'authorization'
  | 'set-cookie'
  | 'vary-any'
  | 'no-freshness'
  | 'too-large'
  | 'refused'
  | 'request-no-store'
  | 'content-type'
  | 'too-many-variants'
  | 'still-fresh'

/** What decides whether and for how long a response is stored, beside the response. */
export interface StoragePolicy extends FreshnessPolicy {
  /** Responses with Set-Cookie are stored, the field too. */
  readonly storesCookies: boolean
  /** Media ranges; content of other types is not stored. Undefined: all is. */
  readonly contentTypes: readonly string[] | undefined
}

export type Storability = { readonly store: true; readonly lifetimeMs: number } | { readonly store: false; readonly reason: NotStoredReason }

export interface StorabilityInput extends Timed {
  readonly method: string
  /** The request carried Authorization, or was authenticated here. */
  readonly authorized: boolean
  readonly requestNoStore: boolean
}

/** Final statuses whose caching requirements are met here (RFC 9111 section 5.2.2.3). 206 and 304 are no responses of their own. */
const understood: ReadonlySet<number> = new Set([
  200, 201, 202, 203, 204, 205, 300, 301, 302, 303, 305, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 425, 426, 428, 429, 431, 451,
  500, 501, 502, 503, 504, 505, 511
])

/** Without these a response is another one, or cannot be kept at all. */
const indispensable: ReadonlySet<string> = new Set(['cache-control', 'content-encoding', 'content-length', 'content-range', 'content-type', 'date', 'vary'])

/** Whether a shared cache may store this response, and for how long it is fresh. RFC 9111 section 3. */
export function storability(input: StorabilityInput, policy: StoragePolicy): Storability {
  const { headers, status } = input
  if (input.method !== 'GET') return { store: false, reason: 'method' }
  if (input.requestNoStore) return { store: false, reason: 'request-no-store' }
  if (status < 200 || status === 206 || status === 304) return { store: false, reason: 'status' }
  const control = responseControl(headers, policy)
  if (control?.mustUnderstand) {
    // no-store beside it is for caches that do not know the directive.
    if (!understood.has(status)) return { store: false, reason: 'status' }
  } else if (control?.noStore) return { store: false, reason: 'no-store' }
  if (control !== undefined && (control.private || control.withheld.some((name) => indispensable.has(name)))) return { store: false, reason: 'private' }
  if (headers['set-cookie'] !== undefined && !policy.storesCookies && !control?.withheld.includes('set-cookie')) return { store: false, reason: 'set-cookie' }
  // https://www.rfc-editor.org/rfc/rfc9111#section-3.5
  if (input.authorized && !(control?.public || control?.mustRevalidate || control?.sMaxage !== undefined)) return { store: false, reason: 'authorization' }
  if (policy.contentTypes !== undefined && status < 300 && status !== 204 && status !== 205 && !isOfType(headers, policy.contentTypes)) return { store: false, reason: 'content-type' }
  if (combined(headers.vary)?.includes('*')) return { store: false, reason: 'vary-any' }
  const explicit = explicitLifetimeMs(input, control, policy)
  if (explicit === undefined && !allowsHeuristic(status, control)) return { store: false, reason: 'status' }
  const lifetimeMs = control?.noCache ? 0 : (explicit ?? heuristicLifetimeMs(input, control, policy))
  // Never fresh, never to be confirmed and never to be served stale: keeping it would help nobody.
  if (lifetimeMs <= 0 && !hasValidator(headers) && explicitStaleMs(control) === 0) return { store: false, reason: 'no-freshness' }
  return { store: true, lifetimeMs }
}
