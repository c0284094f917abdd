import { createHeaders, derive, discardBody, type Handler, type HeaderMap, type ProxyRequest, type ProxyResponse } from '@proxy/pipeline'
import { isAuthorized } from './authorized.ts'
import type { Background } from './background.ts'
import type { ForwardReason } from './cache-status.ts'
import type { EngineOptions } from './engine-options.ts'
import type { EntryAnswers } from './entry-answers.ts'
import { isUnreachable } from './errors.ts'
import type { Fetcher } from './fetcher.ts'
import type { Keeper } from './keeper.ts'
import { pass } from './pass.ts'
import { renewedRecord } from './record.ts'
import { isServerError } from './staleness.ts'
import { storability } from './storability.ts'
import type { CacheEntry } from './store.ts'

export interface HeadAnswersParts {
  readonly options: EngineOptions
  readonly fetcher: Fetcher
  readonly keeper: Keeper
  readonly background: Background
  readonly answers: EntryAnswers
}

/** Answers to HEAD from what is stale. */
export class HeadAnswers {
  private readonly parts: HeadAnswersParts

  constructor(parts: HeadAnswersParts) {
    this.parts = parts
  }

  /** A HEAD for which there is a stale entry: its answer renews the entry, or shows that there is a newer one (RFC 9111 section 4.3.5). */
  async answer(request: ProxyRequest, next: Handler, fwd: ForwardReason, key: string, stale: CacheEntry): Promise<ProxyResponse> {
    const { clock, keys, name, store } = this.parts.options
    const requestTime = clock.wallMs()
    const askedMs = clock.monotonicMs()
    const asked = createHeaders(request.headers)
    keys.negotiation.apply(asked)
    let response: ProxyResponse
    try {
      response = await pass(name, derive(request, { headers: asked }), next, fwd, 'method')
    } catch (error) {
      if (isUnreachable(error) && this.parts.fetcher.mayStandIn(stale, undefined)) return this.parts.answers.stale(stale, request, { fwd, detail: 'stale-if-error' }, key)
      stale.discard()
      throw error
    }
    if (isServerError(response.status) && this.parts.fetcher.mayStandIn(stale, response.status)) {
      discardBody(response.body)
      return this.parts.answers.stale(stale, request, { fwd, fwdStatus: response.status, detail: 'stale-if-error' }, key)
    }
    stale.discard()
    if (response.status !== 200 || isAuthorized(request)) return response
    const { meta, version } = stale
    const renewed = renewedRecord(this.parts.options, meta, withoutCacheStatus(response.headers), { requestTime, responseTime: clock.wallMs(), delayMs: clock.monotonicMs() - askedMs })
    // It may have become private, or not to be stored, since.
    const holds = describes(response.headers, meta.headers, meta.length) && storability({ ...renewed, method: 'GET', authorized: false, requestNoStore: false }, this.parts.options.freshness).store
    this.parts.background.add(this.parts.keeper.attempt(() => (holds ? store.touch(key, version, renewed) : store.delete(key, version))))
    return response
  }
}

/** Whether fields of an answer to HEAD are those of the stored representation, as far as they say. */
function describes(headers: Readonly<HeaderMap>, stored: Readonly<HeaderMap>, length: number): boolean {
  const declared = headers['content-length']
  if (declared !== undefined && declared !== String(length)) return false
  for (const validator of ['etag', 'last-modified']) if (headers[validator] !== undefined && headers[validator] !== stored[validator]) return false
  return true
}

function withoutCacheStatus(from: Readonly<HeaderMap>): HeaderMap {
  const headers = createHeaders(from)
  headers['cache-status'] = undefined
  return headers
}
