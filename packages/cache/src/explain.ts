import { type ProxyRequest, type ProxyResponse, toProxyError } from '@proxy/pipeline'
import { clientKind, isAuthorized } from './authorized.ts'
import { type CacheControl, parseCacheControl, requestControl } from './cache-control.ts'
import type { EngineOptions } from './engine-options.ts'
import type { EntryAnswers } from './entry-answers.ts'
import type { Fetcher } from './fetcher.ts'
import type { Fills } from './fill.ts'
import { currentAgeMs, type FreshnessPolicy, initialAgeMs, responseControl, type Timed } from './freshness.ts'
import { type Judgement, judge } from './judgement.ts'
import type { Keeper } from './keeper.ts'
import { variantKey } from './key.ts'
import { asksForAll, contentRange } from './range.ts'
import type { Refresher } from './refresher.ts'
import { type NotStoredReason, storability } from './storability.ts'
import type { CacheEntry, StoredMeta } from './store.ts'
import { holds, type StoredParts, strongTag } from './stored-parts.ts'
import { ruleFits } from './ttl-rules.ts'
import type { Mark, Uncacheable } from './uncacheable.ts'

/** What would be done with a request: `hit`, `stale`: answered from the store. `revalidate`: the origin is asked if what is stored holds. `join`: waits for a fetch that is under way. `fetch`, `pass`: asked of the origin, to be stored or not. `refuse`: 504. */
export type Decision = 'hit' | 'stale' | 'revalidate' | 'join' | 'fetch' | 'pass' | 'refuse'

/** Where a lifetime comes from. */
export type LifetimeSource = 'rule' | 's-maxage' | 'max-age' | 'expires' | 'heuristic' | 'no-cache' | 'none'

/** Why the cache does what it does with a request. Plain JSON data; times in milliseconds. */
export interface Explanation {
  readonly decision: Decision
  /** The reason, a word: a `Judgement` of what is stored, `uri-miss`, `vary-miss`, `method`, `body`, `rule` (a bypass rule), `uncacheable`, `too-many-variants`, `range`, `no-store`, `only-if-cached`, `store-failed`. */
  readonly because: string
  /** The URL as far as it counts for the key. */
  readonly url: string
  readonly namespace: string
  /** Request fields and cookies (`cookie:NAME`) that tell variants of this URL apart. */
  readonly variesBy?: readonly string[]
  /** Credentials or a principal: the answer is stored and shared only where it says so. */
  readonly authorized: boolean
  readonly stored?: StoredExplanation
  /** Lately the answer was not to be stored. */
  readonly uncacheable?: { readonly reason: NotStoredReason; readonly bypass: boolean; readonly forMs: number }
  /** Message of the store's failure. */
  readonly storeError?: string
  /** Of an answer that was given: whether it may be stored, and why not. */
  readonly answer?: AnswerExplanation
}

export interface StoredExplanation {
  readonly judgement: Judgement
  readonly status: number
  readonly ageMs: number
  readonly lifetimeMs: number
  readonly lifetimeFrom: LifetimeSource
  /** Until the entry is dropped. */
  readonly keptMs: number
  readonly bytes: number
  readonly tags: readonly string[]
  /** Can be confirmed by the origin. */
  readonly validator: 'etag' | 'last-modified' | 'none'
}

/** `confirms`: a 304, what is stored still holds. `part`: stored as a part. */
export type AnswerExplanation =
  | { readonly confirms: true }
  | { readonly part?: true; readonly stored: true; readonly lifetimeMs: number; readonly lifetimeFrom: LifetimeSource }
  | { readonly stored: false; readonly reason: NotStoredReason }

export interface ExplainerParts {
  readonly options: EngineOptions
  readonly fills: Fills
  readonly keeper: Keeper
  readonly fetcher: Fetcher
  readonly refresher: Refresher
  readonly answers: EntryAnswers
  readonly uncacheable: Uncacheable
  readonly parts: StoredParts
}

/** Says what would be done with a request, and does nothing: the same steps as the engine's, with the same functions. */
export class Explainer {
  private readonly parts: ExplainerParts

  constructor(parts: ExplainerParts) {
    this.parts = parts
  }

  async explain(request: ProxyRequest): Promise<Explanation> {
    const { options } = this.parts
    const { headers, method } = request
    const common = { url: options.keys.url(request.scheme, request.authority, request.target), namespace: options.namespace, authorized: isAuthorized(request) }
    if (method !== 'GET' && method !== 'HEAD') return { decision: 'pass', because: 'method', ...common }
    if (request.body !== null) return { decision: 'pass', because: 'body', ...common }
    if (options.bypasses?.(request) === true) return { decision: 'pass', because: 'rule', ...common }
    const control = options.heedsRequests ? requestControl(headers) : undefined

    const base = options.keys.key(request)
    const known = this.parts.uncacheable.find(base, clientKind(request), options.clock.monotonicMs())
    if (known?.bypass && !control?.onlyIfCached) return { decision: 'pass', because: 'uncacheable', ...common, uncacheable: this.marked(known) }
    let key = base
    let index: StoredMeta | undefined
    let entry: CacheEntry | undefined
    let storeError: string | undefined
    try {
      entry = await this.found(base)
      if (entry !== undefined && !options.keys.tellsApart(entry.meta)) entry = undefined
      if (entry?.meta.vary !== undefined) {
        index = entry.meta
        key = variantKey(base, entry.meta.vary, headers, options.keys)
        entry = await this.found(key)
      }
    } catch (error) {
      storeError = toProxyError(error).message
    }
    const stored = entry === undefined ? undefined : this.storedExplanation(entry.meta, control)
    const failure = entry === undefined ? undefined : this.parts.refresher.failure(key)
    const standsIn = entry !== undefined && failure !== undefined && this.parts.fetcher.mayStandIn(entry, failure.status)
    const mark = this.parts.uncacheable.find(key, clientKind(request), options.clock.monotonicMs())
    return {
      ...(await this.decision(request, key, base, index, stored, control, storeError, standsIn)),
      ...common,
      ...(index?.vary !== undefined && { variesBy: index.vary.fields }),
      ...(stored !== undefined && { stored }),
      ...(mark !== undefined && { uncacheable: this.marked(mark) }),
      ...(storeError !== undefined && { storeError })
    }
  }

  /** Whether an answer of the origin to `request` may be stored. Its fields are those that the origin sent. */
  explainAnswer(request: ProxyRequest, { status, headers }: Pick<ProxyResponse, 'status' | 'headers'>): AnswerExplanation {
    const { clock, freshness, heedsRequests } = this.parts.options
    const responseTime = clock.wallMs()
    if (status === 304) return { confirms: true }
    const range = status === 206 ? contentRange(headers) : undefined
    const isWhole = range !== undefined && range.start === 0 && range.end === range.total - 1
    if (status === 206 && !isWhole && (range === undefined || strongTag(headers) === undefined)) return { stored: false, reason: 'status' }
    const timed: Timed = { status: status === 206 ? 200 : status, headers, responseTime, initialAgeMs: initialAgeMs(headers, 0, responseTime) }
    const requestNoStore = heedsRequests && parseCacheControl(request.headers['cache-control'])?.noStore === true
    const decision = storability({ ...timed, method: request.method, authorized: isAuthorized(request), requestNoStore }, freshness)
    if (!decision.store) return { stored: false, reason: decision.reason }
    return { ...(status === 206 && !isWhole && { part: true as const }), stored: true, lifetimeMs: decision.lifetimeMs, lifetimeFrom: lifetimeSource(timed, freshness) }
  }

  private marked({ reason, bypass, untilMs }: Mark): NonNullable<Explanation['uncacheable']> {
    return { reason, bypass, forMs: untilMs - this.parts.options.clock.monotonicMs() }
  }

  private async found(key: string): Promise<CacheEntry | undefined> {
    const entry = await this.parts.options.store.get(key, { body: 'none' })
    entry?.discard()
    return entry === undefined || this.parts.fills.isOutdated(entry.meta) ? undefined : entry
  }

  private storedExplanation(meta: StoredMeta, control: CacheControl | undefined): StoredExplanation {
    const { answers, options } = this.parts
    const prepared = answers.prepare(meta)
    const now = options.clock.wallMs()
    const ageMs = currentAgeMs(meta, now)
    return {
      judgement: judge(meta, prepared, { control, ageMs, now, purges: options.purges, policy: options.stale }),
      status: meta.status,
      ageMs,
      lifetimeMs: prepared.lifetimeMs,
      lifetimeFrom: lifetimeSource(meta, options.freshness),
      keptMs: meta.keepUntil - now,
      bytes: meta.length,
      tags: meta.tags,
      validator: meta.headers.etag !== undefined ? 'etag' : meta.headers['last-modified'] !== undefined ? 'last-modified' : 'none'
    }
  }

  /** In the order of the engine's own decisions. */
  private async decision(
    request: ProxyRequest,
    key: string,
    base: string,
    index: StoredMeta | undefined,
    stored: StoredExplanation | undefined,
    control: CacheControl | undefined,
    storeError: string | undefined,
    standsIn: boolean
  ): Promise<Pick<Explanation, 'decision' | 'because'>> {
    const { fills, keeper, options, uncacheable } = this.parts
    const judgement = stored?.judgement
    if (judgement === 'fresh') return { decision: 'hit', because: judgement }
    if (judgement === 'stale-while-revalidate' || judgement === 'max-stale') return { decision: 'stale', because: judgement }
    if (judgement === 'stale' && standsIn) return { decision: 'stale', because: 'stale-if-error' }
    const held = judgement === 'stale' || judgement === 'request'
    const part = request.headers.range !== undefined && !asksForAll(request)
    const fromPart = part && request.method === 'GET' && !held ? await this.fromPart(key, request, control) : undefined
    if (fromPart === 'hit') return { decision: 'hit', because: 'part' }
    if (control?.onlyIfCached) return { decision: 'refuse', because: 'only-if-cached' }
    const miss = storeError !== undefined ? 'store-failed' : judgement === 'gone' || judgement === 'purged' ? judgement : index === undefined ? 'uri-miss' : 'vary-miss'
    const now = options.clock.monotonicMs()
    const mark = uncacheable.find(key, clientKind(request), now)
    if (mark?.bypass) return { decision: 'pass', because: 'uncacheable' }
    if (index !== undefined && !held && keeper.variants.isFull(base, key, options.clock.wallMs())) return { decision: 'pass', because: 'too-many-variants' }
    if (!part && !isAuthorized(request) && !control?.noCache && mark === undefined && fills.find(key) !== undefined) return { decision: 'join', because: miss }
    if (control?.noStore) return { decision: 'pass', because: 'no-store' }
    if (held) return { decision: 'revalidate', because: judgement }
    if (request.method === 'HEAD') return { decision: 'pass', because: 'method' }
    return { decision: 'fetch', because: part ? (fromPart ?? 'range') : miss }
  }

  /** Whether a stored part has what a request asks for, or something else of the response. */
  private async fromPart(key: string, request: ProxyRequest, control: CacheControl | undefined): Promise<'hit' | 'partial' | undefined> {
    const found = await this.parts.parts.find(key, 'none', control)
    if (found === undefined) return undefined
    found.entry.discard()
    return found.isFresh && holds(found, request) ? 'hit' : 'partial'
  }
}

function lifetimeSource(response: Timed, policy: FreshnessPolicy): LifetimeSource {
  const { headers, status } = response
  const control = responseControl(headers, policy)
  if (control?.noCache) return 'no-cache'
  if (policy.rules.some((rule) => ruleFits(rule, status, headers))) return 'rule'
  if (control?.sMaxage !== undefined) return 's-maxage'
  if (control?.maxAge !== undefined) return 'max-age'
  if (headers.expires !== undefined && control?.isTargeted !== true && !policy.ignoresOrigin) return 'expires'
  return policy.heuristic !== undefined && headers['last-modified'] !== undefined ? 'heuristic' : 'none'
}

/** What is longer, or more, is cut: fields have a bound. Characters, but for the number of tags. */
const MAX_URL = 512
const MAX_TAGS = 16
const MAX_TAG = 64

/** An explanation as the value of a field: JSON in ASCII. */
export function explanationText(explanation: Explanation): string {
  const { url } = explanation
  const { stored } = explanation
  const shown = {
    ...explanation,
    url: url.length > MAX_URL ? `${url.slice(0, MAX_URL)}…` : url,
    ...(stored !== undefined && { stored: { ...stored, tags: stored.tags.slice(0, MAX_TAGS).map((tag) => tag.slice(0, MAX_TAG)) } })
  }
  return JSON.stringify(shown).replace(/[^\x20-\x7e]/g, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}
