import type { CacheMeta, CacheStore } from './store.ts'

export interface Tier {
  readonly store: CacheStore
  /** Name in `onTierError` and `tierStats`. */
  readonly name: string
  /** Which responses this tier keeps: `(meta) => meta.status >= 400` for negative entries alone. Default: all. */
  readonly admit?: (meta: CacheMeta) => boolean
  /** Whether what is found in a tier further away, and read whole, is copied to this one, where it admits it. Default true. */
  readonly promote?: boolean
  /** Longest wait for a lookup, a body being opened, a touch and a delete. Milliseconds. Default 500; for a store that is `guarded` none but its own. */
  readonly timeoutMs?: number
  /** Longest wait for a commit, and for `close`. Milliseconds. Default 10 s; for a store that is `guarded` none but its own. */
  readonly commitTimeoutMs?: number
  /**
   * Bound of the bytes handed to all writes of this tier that it has not settled; a write beyond it is given up. What was written before a pause that the store
   * asked for, and ended, does not count. Default 64 MiB; for a store that is `guarded` none but its own.
   */
  readonly maxBufferedBytes?: number
  /**
   * When the tier is left out: after `failureThreshold` failures in a row (default 5) or 10 among the latest 20, for `openMs` (default 1000, and no less than
   * what one request may have to wait for it). Lookups and writes are judged apart. Of a store that is `guarded`, only writes that it held up count, unless this is given.
   */
  readonly breaker?: { readonly failureThreshold?: number; readonly openMs?: number }
}

/** `Tier` with every default filled in: without a bound of its own, a number is Infinity. */
export interface ResolvedTier {
  readonly name: string
  readonly store: CacheStore
  readonly admit: ((meta: CacheMeta) => boolean) | undefined
  readonly promote: boolean
  readonly timeoutMs: number
  readonly commitTimeoutMs: number
  readonly maxBufferedBytes: number
  readonly failureThreshold: number
  readonly openMs: number
  /** Whether failures of the store count, and not only that it holds up writes. */
  readonly judged: boolean
}

/** Throws TypeError for a number that is not above 0. */
export function resolveTier({ store, name, admit, promote, breaker, ...bounds }: Tier): ResolvedTier {
  const guarded = store.guarded === true
  const bound = (key: 'timeoutMs' | 'commitTimeoutMs' | 'maxBufferedBytes', byDefault: number): number =>
    positive(`${key} of tier ${name}`, bounds[key] ?? (guarded ? Number.POSITIVE_INFINITY : byDefault))
  return {
    name,
    store,
    admit,
    promote: promote !== false,
    timeoutMs: bound('timeoutMs', 500),
    commitTimeoutMs: bound('commitTimeoutMs', 10_000),
    maxBufferedBytes: bound('maxBufferedBytes', 64 * 1024 * 1024),
    failureThreshold: positive(`breaker.failureThreshold of tier ${name}`, breaker?.failureThreshold ?? 5),
    openMs: positive(`breaker.openMs of tier ${name}`, breaker?.openMs ?? 1000),
    judged: !guarded || breaker !== undefined
  }
}

export function positive(name: string, value: number): number {
  if (!(value > 0)) throw new TypeError(`${name} must be a number above 0`)
  return value
}
