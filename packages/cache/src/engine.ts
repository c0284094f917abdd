import { cacheResult, createHeaders, type Handler, type ProxyRequest, type ProxyResponse } from '@proxy/pipeline'
import { answerFrom } from './answer.ts'
import { clientKind, isAuthorized } from './authorized.ts'
import { Background } from './background.ts'
import { type CacheControl, requestControl } from './cache-control.ts'
import { addCacheStatus, type ForwardReason, forwardedStatus } from './cache-status.ts'
import type { EngineOptions } from './engine-options.ts'
import { EntryAnswers } from './entry-answers.ts'
import { onlyIfCached } from './errors.ts'
import { Explainer, type Explanation, explanationText } from './explain.ts'
import { Fetcher, type Found } from './fetcher.ts'
import { Fills } from './fill.ts'
import { FillAnswers } from './fill-answers.ts'
import { currentAgeMs } from './freshness.ts'
import { HeadAnswers } from './head-answers.ts'
import { judge } from './judgement.ts'
import { Keeper } from './keeper.ts'
import { variantKey } from './key.ts'
import { OtherMethods } from './other-methods.ts'
import { PartAnswers } from './part-answers.ts'
import { pass } from './pass.ts'
import type { Purge, PurgeResult } from './purge.ts'
import { Purger } from './purger.ts'
import { asksForAll } from './range.ts'
import { bodiless, Refresher } from './refresher.ts'
import type { CacheEntry, GetOptions, StoredMeta } from './store.ts'
import { StoredParts } from './stored-parts.ts'
import { type Mark, Uncacheable } from './uncacheable.ts'

/** The decisions of a shared cache over one store: look up, serve, confirm, fetch once for all who wait, forget. */
export class CacheEngine {
  private readonly options: EngineOptions
  private readonly fills = new Fills()
  private readonly background = new Background()
  private readonly keeper: Keeper
  private readonly fetcher: Fetcher
  private readonly uncacheable = new Uncacheable()
  private readonly refresher: Refresher
  private readonly others: OtherMethods
  private readonly answers: EntryAnswers
  private readonly filled: FillAnswers
  private readonly stored: StoredParts
  private readonly partly: PartAnswers
  private readonly heads: HeadAnswers
  private readonly purger: Purger
  private readonly explainer: Explainer
  /** Of the log of purges, when somebody was last sent to the origin. */
  private purgeRevision: number

  constructor(options: EngineOptions) {
    this.options = options
    this.purgeRevision = options.purges.revision
    this.stored = new StoredParts(options, this.fills)
    this.keeper = new Keeper(options, this.fills, this.background, this.stored)
    this.fetcher = new Fetcher(options, this.fills, this.background, this.stored, this.keeper)
    this.refresher = new Refresher(options, this.fetcher, this.background, this.uncacheable)
    this.others = new OtherMethods(options, this.fills, this.keeper, this.stored)
    this.answers = new EntryAnswers(options)
    const { answers, background, fetcher, fills, keeper, refresher, stored, uncacheable } = this
    this.purger = new Purger(options, fills)
    this.heads = new HeadAnswers({ options, fetcher, keeper, background, answers })
    this.partly = new PartAnswers({ options, fetcher, keeper, refresher, background, answers, stored })
    this.explainer = new Explainer({ options, fills, keeper, fetcher, refresher, answers, uncacheable, parts: stored })
    this.filled = new FillAnswers({
      options,
      fills,
      fetcher,
      refresher,
      uncacheable,
      answers,
      again: (request, next) => this.handle(request, next, true),
      dropBroken: (key, entry, error) => this.dropBroken(key, entry, error)
    })
  }

  /** Resolves when the fills and store writes under way have ended. */
  async drain(): Promise<void> {
    while (this.fills.size > 0 || this.background.size > 0) {
      if (this.fills.size > 0) await this.fills.nextEnd()
      await this.background.settled()
    }
  }

  purge(purge: Purge): Promise<PurgeResult> {
    return this.purger.purge(purge)
  }

  stats(): { readonly fills: number; readonly variantsRefused: number } {
    return { fills: this.fills.size, variantsRefused: this.keeper.variants.refused }
  }

  /** What would be done with a request, and why. With an answer of the origin, also whether it may be stored. */
  async explain(request: ProxyRequest, response?: Pick<ProxyResponse, 'status' | 'headers'>): Promise<Explanation> {
    const explanation = await this.explainer.explain(request)
    return response === undefined ? explanation : { ...explanation, answer: this.explainer.explainAnswer(request, response) }
  }

  /** Handles a request, and tells in a field of the answer what was known when it came, and what the origin's answer means to the store. */
  async handleExplained(request: ProxyRequest, next: Handler, field: string): Promise<ProxyResponse> {
    let fromOrigin: Pick<ProxyResponse, 'status' | 'headers'> | undefined
    const before = await this.explainer.explain(request)
    const response = await this.handle(request, async (asked) => {
      const answer = await next(asked)
      fromOrigin = { status: answer.status, headers: createHeaders(answer.headers) }
      return answer
    })
    response.headers[field] = explanationText(fromOrigin === undefined ? before : { ...before, answer: this.explainer.explainAnswer(request, fromOrigin) })
    return response
  }

  async handle(request: ProxyRequest, next: Handler, retried = false): Promise<ProxyResponse> {
    const { method, headers } = request
    if (method !== 'GET' && method !== 'HEAD') return this.others.passUnsafe(request, next)
    if (request.body !== null || this.options.bypasses?.(request) === true) return this.pass(request, next, 'bypass')
    const control = this.options.heedsRequests ? requestControl(headers) : undefined

    const { clock, keys, purges, stale, store, onStoreError } = this.options
    const base = keys.key(request)
    const kind = clientKind(request)
    // What goes by the cache need not be looked up: far stores are a round trip away.
    if (!this.uncacheable.isEmpty(kind) && control?.onlyIfCached !== true) {
      const mark = this.uncacheable.find(base, kind, clock.monotonicMs())
      if (mark?.bypass) return this.passMarked(base, mark, request, next, 'uri-miss')
    }
    const { invalidatedCount, storedCount } = this.fills
    // A client that has a copy mostly hears that it still holds.
    const want = method === 'HEAD' || headers.range !== undefined || headers['if-none-match'] !== undefined || headers['if-modified-since'] !== undefined ? metaOnly : undefined
    let key = base
    let index: StoredMeta | undefined
    let entry: CacheEntry | undefined
    try {
      entry = this.unlessOutdated(await store.get(base, want))
      if (entry !== undefined && !keys.tellsApart(entry.meta)) {
        entry.discard()
        entry = undefined
      }
      if (entry?.meta.vary !== undefined) {
        index = entry.meta
        entry.discard()
        entry = undefined
        key = variantKey(base, index.vary as NonNullable<typeof index.vary>, headers, keys)
        entry = this.unlessOutdated(await store.get(key, want))
      }
    } catch (error) {
      onStoreError(error)
    }

    let fwd: ForwardReason = index === undefined ? 'uri-miss' : 'vary-miss'
    if (entry !== undefined) {
      const { meta } = entry
      const prepared = this.answers.prepare(meta)
      const now = clock.wallMs()
      const ageMs = currentAgeMs(meta, now)
      const judgement = judge(meta, prepared, { control, ageMs, now, purges, policy: stale })
      if (judgement === 'fresh') {
        try {
          const answer = await answerFrom(entry, meta, prepared.headers(ageMs), request, store, key)
          request.exchange.set(cacheResult, meta.status >= 400 ? 'negative-hit' : 'hit')
          return answer
        } catch (error) {
          this.dropBroken(key, entry, error)
          entry = undefined
        }
      } else if (judgement === 'gone' || judgement === 'purged') {
        entry.discard()
        if (judgement === 'purged') this.remove(key, entry.version)
        else fwd = 'stale'
        entry = undefined
      } else {
        fwd = judgement === 'request' ? 'request' : 'stale'
        const detail = judgement === 'stale' ? (this.standsIn(key, entry) ? 'stale-if-error' : undefined) : judgement === 'request' ? undefined : judgement
        if (detail !== undefined) {
          try {
            const found: Found = { base, key, index, since: invalidatedCount, stale: bodiless(entry), fresh: false }
            const answer = await this.answers.stale(entry, request, { hit: true, fwd, detail }, key)
            if (judgement === 'stale-while-revalidate') this.refresher.start(found, request, next, isAuthorized(request))
            return answer
          } catch (error) {
            this.dropBroken(key, entry, error)
            entry = undefined
          }
        }
      }
    }
    // A fill that was stored while a slow store said that it had nothing would be missed by the lookup and by the search for a fill.
    if (entry === undefined && !retried && this.fills.storedSince(base, storedCount)) return this.handle(request, next, true)
    if (control?.onlyIfCached) {
      entry?.discard()
      const part = headers.range === undefined ? undefined : await this.partly.fromStored(key, request, control)
      if (part !== undefined) return part
      throw onlyIfCached()
    }
    // Awaited: an async function that returns a promise takes two more turns to settle.
    return await this.forward({ base, key, index, since: invalidatedCount, stale: entry, fresh: fwd === 'request' }, request, next, control, fwd, retried)
  }

  private unlessOutdated(entry: CacheEntry | undefined): CacheEntry | undefined {
    if (entry === undefined || !this.fills.isOutdated(entry.meta)) return entry
    entry.discard()
    return undefined
  }

  /** Nothing fresh is stored: ask the origin, or join who is asking already. */
  private forward(found: Found, request: ProxyRequest, next: Handler, control: CacheControl | undefined, fwd: ForwardReason, retried: boolean): Promise<ProxyResponse> {
    const { revision } = this.options.purges
    if (revision !== this.purgeRevision) {
      // Another cache, or another process, has purged something: nobody joins what was asked for before.
      this.purgeRevision = revision
      this.fills.forget()
      // What was counted may be gone.
      this.keeper.variants.clear()
    }
    const authorized = isAuthorized(request)
    const known = found.stale === undefined ? this.uncacheable.find(found.key, clientKind(request), this.options.clock.monotonicMs()) : undefined
    if (known?.bypass) return this.passMarked(found.key, known, request, next, fwd)
    if (found.index !== undefined && found.stale === undefined && this.keeper.variants.isFull(found.base, found.key, this.options.clock.wallMs())) {
      this.keeper.variants.refused++
      return this.pass(request, next, fwd, 'too-many-variants')
    }
    // A part is not the whole, and what one client may see is not fetched on behalf of others.
    const part = request.headers.range !== undefined && !asksForAll(request)
    const running = part || authorized || control?.noCache || known !== undefined ? undefined : this.fills.find(found.key)
    if (running !== undefined && this.filled.mayJoin(running, control)) return this.filled.join(running, found, request, next, fwd, retried)
    // A HEAD alone brings nothing to store.
    if (!part && request.method === 'GET' && !control?.noStore) return this.filled.lead(found, request, next, fwd, authorized, known !== undefined)
    if (found.stale !== undefined && request.method === 'HEAD' && !part && !control?.noStore) return this.heads.answer(request, next, fwd, found.key, found.stale)
    if (part && request.method === 'GET') return this.partly.answer(found, request, next, fwd, control, known !== undefined)
    found.stale?.discard()
    return this.pass(request, next, fwd, control?.noStore ? 'request-no-store' : part ? 'range' : 'method')
  }

  /** The origin failed a moment ago, and a client that may have a stale response need not wait for it to fail again. */
  private standsIn(key: string, entry: CacheEntry): boolean {
    const failure = this.refresher.failure(key)
    return failure !== undefined && this.fetcher.mayStandIn(entry, failure.status)
  }

  /** An entry whose body does not open is a miss, and is not found again. */
  private dropBroken(key: string, entry: CacheEntry, error: unknown): void {
    this.options.onStoreError(error)
    this.remove(key, entry.version)
  }

  private remove(key: string, version: string): void {
    this.background.add(this.keeper.attempt(() => this.options.store.delete(key, version)))
  }

  /** Goes by the cache, for as long as that is right. */
  private async passMarked(key: string, mark: Mark, request: ProxyRequest, next: Handler, fwd: ForwardReason): Promise<ProxyResponse> {
    request.exchange.set(cacheResult, 'miss')
    const response = await next(request)
    if (this.keeper.isStorable(request, response)) this.uncacheable.forget(key)
    addCacheStatus(response.headers, forwardedStatus(this.options.name, { fwd, detail: mark.reason }))
    return response
  }

  private pass(request: ProxyRequest, next: Handler, fwd: ForwardReason, detail?: string): Promise<ProxyResponse> {
    return pass(this.options.name, request, next, fwd, detail)
  }
}

const metaOnly: GetOptions = { body: 'none' }
