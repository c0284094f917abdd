import { cacheResult, createHeaders, type Handler, type HeaderMap, type ProxyRequest, type ProxyResponse } from '@proxy/pipeline'
import { applyConditions } from './answer.ts'
import { clientKind } from './authorized.ts'
import type { CacheControl } from './cache-control.ts'
import { addCacheStatus, type ForwardReason, forwardedStatus, ttlSeconds } from './cache-status.ts'
import type { EngineOptions } from './engine-options.ts'
import type { EntryAnswers } from './entry-answers.ts'
import { originFailed } from './errors.ts'
import type { Fetcher, Found } from './fetcher.ts'
import type { Fill, FillOutcome, Fills } from './fill.ts'
import { currentAgeMs, type FreshnessPolicy, isFresh, lifetimeMs, responseControl } from './freshness.ts'
import { variantKey } from './key.ts'
import { pass } from './pass.ts'
import type { Refresher } from './refresher.ts'
import type { SharedBody } from './shared-body.ts'
import type { CacheEntry } from './store.ts'
import type { Uncacheable } from './uncacheable.ts'

export interface FillAnswersParts {
  readonly options: EngineOptions
  readonly fills: Fills
  readonly fetcher: Fetcher
  readonly refresher: Refresher
  readonly uncacheable: Uncacheable
  readonly answers: EntryAnswers
  /** Handles a request anew, for the last time. */
  readonly again: (request: ProxyRequest, next: Handler) => Promise<ProxyResponse>
  /** Removes an entry whose body did not open. */
  readonly dropBroken: (key: string, entry: CacheEntry, error: unknown) => void
}

/** Answers to those for whom the origin is asked: one leads a fill, the others join it. */
export class FillAnswers {
  private readonly parts: FillAnswersParts

  constructor(parts: FillAnswersParts) {
    this.parts = parts
  }

  /** An answer whose header came before this request did is used like a stored one: while it is fresh. Its body, or the store, may take longer than that. */
  mayJoin(fill: Fill, control: CacheControl | undefined): boolean {
    if (fill.meta === undefined) return true
    const { clock, freshness } = this.parts.options
    const [lifetime, ageMs] = [lifetimeMs(fill.meta, freshness), currentAgeMs(fill.meta, clock.wallMs())]
    if (isFresh(lifetime, ageMs, control)) return true
    // Who comes next joins the one that is asked for now.
    if (ageMs >= lifetime) this.parts.fills.close(fill)
    return false
  }

  async lead(found: Found, request: ProxyRequest, next: Handler, fwd: ForwardReason, authorized: boolean, alone: boolean): Promise<ProxyResponse> {
    const { stale } = found
    const { name } = this.parts.options
    const fill = this.parts.fetcher.start(found, request, next, { authorized, alone })
    let result: FillOutcome
    try {
      result = await fill.outcome
    } catch (error) {
      stale?.discard()
      throw error
    }
    if (result.kind === 'revalidated' && stale !== undefined) {
      try {
        const answer = await this.parts.answers.revalidated(stale, result.meta, request, { fwd, fwdStatus: 304 }, found.key)
        request.exchange.set(cacheResult, 'revalidated')
        if (result.cookies !== undefined) answer.headers['set-cookie'] = result.cookies
        return answer
      } catch (error) {
        // Confirmed, but its bytes are gone: nothing but the whole answer will do.
        this.parts.dropBroken(found.key, stale, error)
        this.parts.fills.close(fill)
        return this.lead({ ...found, stale: undefined }, request, next, fwd, authorized, alone)
      }
    }
    if (result.kind === 'stale' && stale !== undefined) {
      this.parts.refresher.leaveAlone(found.key, result.status)
      try {
        return await this.parts.answers.stale(stale, request, { fwd, detail: 'stale-if-error', ...(result.status !== undefined && { fwdStatus: result.status }) }, found.key)
      } catch (error) {
        this.parts.dropBroken(found.key, stale, error)
        return this.lead({ ...found, stale: undefined }, request, next, fwd, authorized, alone)
      }
    }
    stale?.discard()
    request.exchange.set(cacheResult, 'miss')
    if (result.kind === 'shared') {
      const { body, status } = result
      // One of unknown length has to come to its end before it is known whether it could be stored.
      if (body.length === undefined) void this.judgeLength(found.key, request, status, body)
      if (alone && (body.length !== undefined || !this.isTooLarge(found.key, request))) this.parts.uncacheable.forget(found.key)
      const headers = createHeaders(result.headers)
      addCacheStatus(headers, forwardedStatus(name, { fwd, stored: result.stored, ttl: result.ttlSeconds }))
      return applyConditions({ status: result.status, headers, body: result.leaderBody }, request)
    }
    const { response, reason } = result as Extract<FillOutcome, { kind: 'unshared' }>
    this.parts.uncacheable.add(found.key, clientKind(request), reason, response.status, this.parts.options.clock.monotonicMs())
    addCacheStatus(response.headers, forwardedStatus(name, { fwd, detail: reason }))
    return applyConditions(response, request)
  }

  /** A body that turns out to be too large is not shared the next time: of those who read it together, the slower ones are cut when it is given up. Never rejects. */
  private async judgeLength(key: string, request: ProxyRequest, status: number, body: SharedBody): Promise<void> {
    const { options, uncacheable } = this.parts
    const stored = await body.settled
    if (stored) uncacheable.forget(key)
    else if (body.outgrew) uncacheable.add(key, clientKind(request), 'too-large', status, options.clock.monotonicMs())
  }

  private isTooLarge(key: string, request: ProxyRequest): boolean {
    return this.parts.uncacheable.find(key, clientKind(request), this.parts.options.clock.monotonicMs())?.reason === 'too-large'
  }

  async join(fill: Fill, found: Found, request: ProxyRequest, next: Handler, fwd: ForwardReason, retried: boolean): Promise<ProxyResponse> {
    const { stale } = found
    const { clock, freshness, keys, name } = this.parts.options
    const { meta } = fill
    let result: FillOutcome
    try {
      result = await fill.outcome
    } catch (error) {
      stale?.discard()
      // One more try for all who waited and are still there: the first of them leads it, the others join that.
      if (retried || request.signal.aborted) throw error
      return this.parts.again(request, next)
    }
    if (result.kind === 'revalidated' && result.shared && stale?.version === result.version) {
      try {
        const answer = await this.parts.answers.revalidated(stale, result.meta, request, { fwd, collapsed: true }, found.key)
        request.exchange.set(cacheResult, 'collapsed')
        return answer
      } catch (error) {
        this.parts.dropBroken(found.key, stale, error)
        this.parts.fills.close(fill)
      }
    } else if (result.kind === 'stale' && stale?.version === result.version && this.parts.fetcher.mayStandIn(stale, result.status)) {
      // Of one version, but perhaps found before the leader's was confirmed: it is older then.
      try {
        return await this.parts.answers.stale(stale, request, { fwd, collapsed: true, detail: 'stale-if-error', ...(result.status !== undefined && { fwdStatus: result.status }) }, found.key)
      } catch (error) {
        this.parts.dropBroken(found.key, stale, error)
      }
    } else {
      stale?.discard()
    }
    const matches = result.kind === 'shared' && (result.vary === undefined || variantKey(found.base, result.vary, request.headers, keys) === result.key)
    if (result.kind === 'shared' && matches) {
      const body = request.method === 'HEAD' ? null : result.body.reader()
      if (body !== undefined) {
        request.exchange.set(cacheResult, 'collapsed')
        const headers = forOthers(result.headers, freshness)
        let ttl = result.ttlSeconds
        if (meta !== undefined) {
          const ageMs = currentAgeMs(meta, clock.wallMs())
          headers.age = String(Math.floor(ageMs / 1000))
          ttl = ttlSeconds(lifetimeMs(meta, freshness), ageMs)
        }
        addCacheStatus(headers, forwardedStatus(name, { fwd, collapsed: true, ttl }))
        return applyConditions({ status: result.status, headers, body }, request)
      }
    }
    // The next of those who waited asks again, for all of them; when that fails too, they are told, and do not all ask an origin that is unwell.
    if (result.kind === 'unshared' && result.response.status >= 500) {
      if (retried) throw originFailed(result.response.status)
      return this.parts.again(request, next)
    }
    // Its first bytes have passed, and a store like S3 gives nothing of it before it has all. The fill goes at its readers' pace: it is not waited for without end.
    if (result.kind === 'shared' && result.stored && matches) {
      const isSettled = await result.body.stored(this.parts.options.storeStallMs)
      // It was begun anew by one of those who had waited, and is to be found now.
      if (retried && isSettled) return this.parts.again(request, next)
      // Those who have waited join one that is begun anew, from its first byte on: otherwise each would ask the origin for itself.
      if (!isSettled) this.parts.fills.close(fill)
    }
    // What the leader got is not for this client, or no longer to be had from its first byte: the store may have it, or another fill be running.
    if (!retried && (result.kind === 'shared' || result.kind === 'stale' || (result.kind === 'revalidated' && result.shared))) return this.parts.again(request, next)
    return pass(name, request, next, fwd, 'not-shared')
  }
}

/** The fields of an answer for a client that it was not made for. */
function forOthers(from: Readonly<HeaderMap>, policy: FreshnessPolicy): HeaderMap {
  const headers = createHeaders(from)
  const control = responseControl(from, policy)
  if (control !== undefined) for (const name of control.withheld) delete headers[name]
  return headers
}
