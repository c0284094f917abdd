import { type Clock, type Middleware, type ProxyRequest, type ProxyResponse, systemClock } from '@proxy/pipeline'
import { type BypassRule, bypassTest } from './bypass.ts'
import { CacheEngine } from './engine.ts'
import type { RangeMiss } from './engine-options.ts'
import type { Explanation } from './explain.ts'
import type { Heuristic } from './freshness.ts'
import { type KeyOptions, KeyRules } from './key-rules.ts'
import type { Purge, PurgeResult } from './purge.ts'
import { MemoryPurgeLog, type PurgeLog } from './purge-log.ts'
import type { StalePolicy } from './staleness.ts'
import type { CacheStore } from './store.ts'
import type { StatusPattern, TtlRule } from './ttl-rules.ts'

export interface CacheOptions {
  /** Where responses are kept. The caller closes it, after `drain()`. */
  readonly store: CacheStore
  /** Keeps apart what several caches put into one store: a route, a pool. Default `default`. */
  readonly namespace?: string
  /** This cache's name in Cache-Status, a token. Default `proxy`. */
  readonly name?: string
  /** What tells one stored response from another, beside the path. Default: host and the query as it was sent. */
  readonly key?: KeyOptions
  /** Requests that go by the cache. Default: none but those with a body. */
  readonly bypass?: readonly BypassRule[]
  /** Whether Cache-Control, Expires and targeted fields of answers count. `ignore`: `ttl`, `minTtlMs` and `heuristic` alone decide, also on what was meant for one client. Default `honour`. */
  readonly originDirectives?: 'honour' | 'ignore'
  /** Whether Cache-Control and Pragma of requests count. `ignore`: no client can have the origin asked. Default `honour`. */
  readonly requestDirectives?: 'honour' | 'ignore'
  /** Bounds of lifetimes that no rule has set, from the arrival of the response. The lower one is for content (200, 203, 300, 301, 308) that the origin lets be stored. Milliseconds. Default 0 and none. */
  readonly minTtlMs?: number
  readonly maxTtlMs?: number
  /** Types that content (2xx) must be of to be stored: `['image/*', '*\/*+json']`. Default: any. */
  readonly contentTypes?: readonly string[]
  /** `store`: responses with Set-Cookie are stored and given to everybody, the cookie too. Default `refuse`. */
  readonly setCookie?: 'refuse' | 'store'
  /** What a request for a part of something that is not stored does: `pass` goes to the origin as it is; `fill` fetches the whole besides, for those who come later. Default `pass`. */
  readonly rangeMiss?: RangeMiss
  /** Variants of one URL that are kept. Beyond, for a minute no further ones are. Default 64. */
  readonly maxVariants?: number
  /** Lifetimes set by configuration. Default: none, the origin's directives alone count. */
  readonly ttl?: readonly TtlRule[]
  /** Lifetime of responses that say nothing of theirs, from the time since they were last modified (RFC 9111 section 4.2.2). Default a tenth of it, a day at most; `false`: none. */
  readonly heuristic?: Heuristic | false
  /** Fields that take the place of Cache-Control here, the most specific first (RFC 9213). Default this cache's own, by its name (`proxy-cache-control`), then `cdn-cache-control`. */
  readonly targetedFields?: readonly string[]
  /** How stale a response may be served where its origin does not say (RFC 5861). Default: a day when no answer of the origin is to be had, otherwise never. */
  readonly stale?: Partial<StalePolicy>
  /** How long failures are remembered. Default: not beyond what the origin allows. */
  readonly negative?: NegativeOptions
  /** Larger responses are passed on, not stored. Default 64 MiB. */
  readonly maxObjectBytes?: number
  /** Bytes of a response in flight that are held for clients reading it, beyond what the store holds. Default 1 MiB. */
  readonly windowBytes?: number
  /** When all clients have left a response in flight, it is fetched to its end if no more than this is missing. Bytes. Default 8 MiB. */
  readonly finishBytes?: number
  /** How long a store that does not keep up may hold up clients before it is left out of a write, and a slow client others, of a body that nothing keeps, before it is cut. Milliseconds. Default 5 s. */
  readonly storeStallMs?: number
  /** How long a stale response that can be confirmed is kept. Milliseconds. Default one day. */
  readonly keepStaleMs?: number
  /** Where purges are noted: one that outlives the process, for stores that do. Default: in memory, of this cache alone. */
  readonly purgeLog?: PurgeLog
  /** How long a purge waits for the store to be walked through before it tells what was found by then. The walk goes on. Milliseconds. Default 10 s. */
  readonly sweepWaitMs?: number
  /** Name of a response field that tells at length, as JSON, what was known of the request and why it was answered as it was. For the operator: it shows keys, tags and lifetimes. Default: none. */
  readonly debugHeader?: string
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
  /** Forgets what is stored, or makes it stale, for this cache's namespace. What is being fetched meanwhile counts as well. Rejects with TypeError for a purge that names nothing or too much, and when the log cannot keep it: it counts in this process all the same. */
  purge(purge: Purge): Promise<PurgeResult>
  /** Why a request would be a hit, a miss, passed on or revalidated, now; nothing is done. With an answer of the origin: also whether that may be stored, and why not. */
  explain(request: ProxyRequest, response?: Pick<ProxyResponse, 'status' | 'headers'>): Promise<Explanation>
}

export interface CacheStats {
  /** Requests to the origin under way on the cache's behalf, up to the end of the store's commit. */
  readonly fills: number
  /** Responses that were not stored because their URL had `maxVariants` variants. */
  readonly variantsRefused: number
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
  for (const rule of rules) checkRule(rule)
  for (const type of options.contentTypes ?? []) if (!mediaRange.test(type)) throw new TypeError(`contentTypes: ${JSON.stringify(type)} is no media type or range`)
  const minMs = amount('minTtlMs', options.minTtlMs, 0)
  const maxMs = amount('maxTtlMs', options.maxTtlMs, Number.POSITIVE_INFINITY)
  if (minMs > maxMs) throw new TypeError('minTtlMs must not be above maxTtlMs')
  const engine = new CacheEngine({
    store: options.store,
    namespace: options.namespace ?? 'default',
    name,
    keys: new KeyRules(options.namespace ?? 'default', options.key),
    freshness: {
      rules,
      targets: (options.targetedFields ?? [`${name}-cache-control`, 'cdn-cache-control']).map((name) => fieldName('targetedFields', name)),
      heuristic: heuristicOf(options.heuristic),
      ignoresOrigin: oneOf('originDirectives', options.originDirectives, ['honour', 'ignore']) === 'ignore',
      minMs,
      maxMs,
      storesCookies: oneOf('setCookie', options.setCookie, ['refuse', 'store']) === 'store',
      contentTypes: options.contentTypes
    },
    heedsRequests: oneOf('requestDirectives', options.requestDirectives, ['honour', 'ignore']) === 'honour',
    bypasses: bypassTest(options.bypass ?? []),
    rangeMiss: oneOf('rangeMiss', options.rangeMiss, ['pass', 'fill']),
    maxVariants: amount('maxVariants', options.maxVariants, 64),
    stale: {
      whileRevalidateMs: amount('stale.whileRevalidateMs', options.stale?.whileRevalidateMs, 0),
      ifUnreachableMs: amount('stale.ifUnreachableMs', options.stale?.ifUnreachableMs, 24 * 3_600_000),
      ifErrorMs: amount('stale.ifErrorMs', options.stale?.ifErrorMs, 0)
    },
    purges: options.purgeLog ?? new MemoryPurgeLog(),
    sweepWaitMs: amount('sweepWaitMs', options.sweepWaitMs, 10_000),
    connectErrorTtlMs: amount('connectErrorMs', negative?.connectErrorMs, 0),
    maxObjectBytes: amount('maxObjectBytes', options.maxObjectBytes, 64 * 1024 * 1024),
    windowBytes: amount('windowBytes', options.windowBytes, 1024 * 1024),
    finishBytes: amount('finishBytes', options.finishBytes, 8 * 1024 * 1024),
    storeStallMs: amount('storeStallMs', options.storeStallMs, 5000),
    keepStaleMs: amount('keepStaleMs', options.keepStaleMs, 24 * 3_600_000),
    clock: options.clock ?? systemClock,
    onStoreError: options.onStoreError ?? (() => {})
  })
  const debugHeader = options.debugHeader === undefined ? undefined : fieldName('debugHeader', options.debugHeader)
  const middleware: Middleware = (next) => (debugHeader === undefined ? (request) => engine.handle(request, next) : (request) => engine.handleExplained(request, next, debugHeader))
  return Object.assign(middleware, {
    drain: () => engine.drain(),
    stats: () => engine.stats(),
    purge: (purge: Purge) => engine.purge(purge),
    explain: (request: ProxyRequest, response?: Pick<ProxyResponse, 'status' | 'headers'>) => engine.explain(request, response)
  })
}

const mediaRange = /^[\w!#$&^.+*-]+\/[\w!#$&^.+*-]+$/

function checkRule({ contentType, status, ttlMs }: TtlRule): void {
  if (!(ttlMs >= 0 && ttlMs < Number.POSITIVE_INFINITY)) throw new TypeError('ttlMs must be a finite number, 0 or more')
  for (const each of typeof status === 'object' ? status : status === undefined ? [] : [status])
    if (!/^[2-5](?:\d\d|xx)$/.test(String(each))) throw new TypeError(`status: ${JSON.stringify(each)} is no final status and no class such as '5xx'`)
  for (const each of typeof contentType === 'object' ? contentType : contentType === undefined ? [] : [contentType])
    if (!mediaRange.test(each)) throw new TypeError(`contentType: ${JSON.stringify(each)} is no media type or range`)
}

/** sf-token (RFC 9651 section 3.3.4). */
const token = /^[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*$/

function fieldName(option: string, name: string): string {
  if (!/^[\w!#$%&'*+.^`|~-]+$/.test(name)) throw new TypeError(`${option}: "${name}" is no field name`)
  return name.toLowerCase()
}

function heuristicOf(heuristic: Heuristic | false | undefined): Heuristic | undefined {
  if (heuristic === false) return undefined
  const { fraction, maxMs } = heuristic ?? { fraction: 0.1, maxMs: 24 * 3_600_000 }
  if (!(fraction > 0 && fraction <= 1)) throw new TypeError('heuristic.fraction must be a number above 0, 1 at most')
  return { fraction, maxMs: amount('heuristic.maxMs', maxMs, 0) }
}

/** The first choice is the default. */
function oneOf<const T extends string>(name: string, value: T | undefined, choices: readonly [T, ...T[]]): T {
  if (value === undefined) return choices[0]
  if (!choices.includes(value)) throw new TypeError(`${name} must be ${choices.map((choice) => `'${choice}'`).join(' or ')}`)
  return value
}

function amount(name: string, value: number | undefined, byDefault: number): number {
  if (value === undefined) return byDefault
  if (!(value >= 0)) throw new TypeError(`${name} must be a number, 0 or more`)
  return value
}
