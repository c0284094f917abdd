import { type Clock, type Middleware, systemClock } from '@proxy/pipeline'
import { CacheEngine } from './engine.ts'
import type { StatusPattern, TtlRule } from './policy.ts'
import type { CacheStore } from './store.ts'

export interface CacheOptions {
  /** Where responses are kept. The caller closes it, after `drain()`. */
  readonly store: CacheStore
  /** Keeps apart what several caches put into one store: a route, a pool. Default `default`. */
  readonly namespace?: string
  /** This cache's name in Cache-Status, a token. Default `proxy`. */
  readonly name?: string
  /** Lifetimes set by configuration. Default: none, the origin's directives alone count. */
  readonly ttl?: readonly TtlRule[]
  /** How long failures are remembered. Default: not beyond what the origin allows. */
  readonly negative?: NegativeOptions
  /** Larger responses are passed on, not stored. Default 64 MiB. */
  readonly maxObjectBytes?: number
  /** Bytes of a response in flight that are held for clients reading it, beyond what the store holds. Default 1 MiB. */
  readonly windowBytes?: number
  /** When all clients have left a response in flight, it is fetched to its end if no more than this is missing. Bytes. Default 8 MiB. */
  readonly finishBytes?: number
  /** How long a store that does not keep up may hold up clients before it is left out of a write. Milliseconds. Default 5 s. */
  readonly storeStallMs?: number
  /** How long a stale response that can be confirmed is kept. Milliseconds. Default one day. */
  readonly keepStaleMs?: number
  readonly clock?: Clock
  /** Told of every store operation that failed. The request was served without it. Must not throw. */
  readonly onStoreError?: (error: unknown) => void
}

export interface NegativeOptions {
  /** Lifetime by status: `{ 404: 86_400_000, '5xx': 1_200_000 }`. Milliseconds. */
  readonly statuses?: Readonly<Partial<Record<StatusPattern, number>>>
  /** Lifetime of a failure to get any answer from the origin (502, 504). Milliseconds. Default 0: not remembered. */
  readonly connectErrorMs?: number
}

export interface CacheMiddleware extends Middleware {
  /** Resolves when the fills and store writes under way have ended. For an orderly end, before the store is closed. */
  drain(): Promise<void>
  stats(): CacheStats
}

export interface CacheStats {
  /** Requests to the origin under way on the cache's behalf, up to the end of the store's commit. */
  readonly fills: number
}

/**
 * A shared HTTP cache (RFC 9111) in front of the next handler. Throws TypeError for a name that is no token and for numbers below 0.
 *
 * @example
 * const handler = compose(cache({ store: new MemoryStore() }))(upstream({ origin: 'https://example.org' }))
 */
export function cache(options: CacheOptions): CacheMiddleware {
  const { negative } = options
  const name = options.name ?? 'proxy'
  if (!token.test(name)) throw new TypeError('name must be a token: it is sent in Cache-Status')
  const rules: TtlRule[] = [...(options.ttl ?? [])]
  for (const [status, ttlMs] of Object.entries(negative?.statuses ?? {})) if (ttlMs !== undefined) rules.push({ status: status as StatusPattern, ttlMs })
  for (const rule of rules) amount('ttlMs', rule.ttlMs, 0)
  const engine = new CacheEngine({
    store: options.store,
    namespace: options.namespace ?? 'default',
    name,
    rules,
    connectErrorTtlMs: amount('connectErrorMs', negative?.connectErrorMs, 0),
    maxObjectBytes: amount('maxObjectBytes', options.maxObjectBytes, 64 * 1024 * 1024),
    windowBytes: amount('windowBytes', options.windowBytes, 1024 * 1024),
    finishBytes: amount('finishBytes', options.finishBytes, 8 * 1024 * 1024),
    storeStallMs: amount('storeStallMs', options.storeStallMs, 5000),
    keepStaleMs: amount('keepStaleMs', options.keepStaleMs, 24 * 3_600_000),
    clock: options.clock ?? systemClock,
    onStoreError: options.onStoreError ?? (() => {})
  })
  const middleware: Middleware = (next) => (request) => engine.handle(request, next)
  return Object.assign(middleware, { drain: () => engine.drain(), stats: () => ({ fills: engine.fillCount }) })
}

/** sf-token (RFC 9651 section 3.3.4). */
const token = /^[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*$/

function amount(name: string, value: number | undefined, byDefault: number): number {
  if (value === undefined) return byDefault
  if (!(value >= 0)) throw new TypeError(`${name} must be a number, 0 or more`)
  return value
}
