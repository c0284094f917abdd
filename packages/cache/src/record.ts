import { createHeaders, type HeaderMap } from '@proxy/pipeline'
import { hasValidator, updateFields } from './conditional.ts'
import type { EngineOptions } from './engine-options.ts'
import { initialAgeMs, lifetimeMs, responseControl } from './freshness.ts'
import { keptStaleMs } from './staleness.ts'
import type { CacheMeta, VaryIndex } from './store.ts'
import { tagsOf } from './tags.ts'
import { uniqueId } from './unique-id.ts'

/** Base records outlive the variants they lead to by this much, so that not every new variant rewrites them. */
const INDEX_EXTRA_MS = 24 * 3_600_000

/** When a request was sent and its answer's header arrived, wall clock. */
export interface Times {
  readonly requestTime: number
  readonly responseTime: number
  /** Between the two by the monotonic clock: the other one may have been set meanwhile. */
  readonly delayMs: number
}

/** What is stored of a response apart from its body. `url` is that of its key; `lifetime` counts from its origin, as `storability` gives it. */
export function recordOf(
  options: EngineOptions,
  url: string,
  answer: { readonly status: number; readonly headers: Readonly<HeaderMap> },
  times: Times,
  lifetime: number,
  length: number | undefined
): CacheMeta {
  const headers = keptFields(answer.headers, responseControl(answer.headers, options.freshness)?.withheld)
  const initialAge = initialAgeMs(answer.headers, times.delayMs, times.responseTime)
  // RFC 9110 section 6.6.1: who has a clock and stores an answer without a Date gives it one.
  headers.date ??= new Date(times.responseTime).toUTCString()
  const meta: CacheMeta & { length?: number } = {
    v: 1,
    id: uniqueId(),
    url,
    namespace: options.namespace,
    status: answer.status,
    headers,
    requestTime: times.requestTime,
    responseTime: times.responseTime,
    initialAgeMs: initialAge,
    keepUntil: keepUntil(options, answer.status, headers, times.responseTime, lifetime, initialAge),
    tags: tagsOf(answer.headers)
  }
  if (length !== undefined) meta.length = length
  return meta
}

/** Left out rather than deleted from a copy: a map that something was deleted from takes several times the memory. */
function keptFields(received: Readonly<HeaderMap>, withheld: readonly string[] | undefined): HeaderMap {
  const headers = createHeaders()
  for (const name in received) {
    if (name === 'age' || name === 'content-length' || name === 'cache-status' || name === 'trailer' || withheld?.includes(name) === true) continue
    headers[name] = received[name]
  }
  return headers
}

/** What is stored after a 304 has confirmed `stale`. */
export function renewedRecord(options: EngineOptions, stale: CacheMeta, from304: Readonly<HeaderMap>, times: Times): CacheMeta {
  const merged = createHeaders(stale.headers)
  updateFields(merged, from304, options.freshness.storesCookies)
  const headers = keptFields(merged, responseControl(merged, options.freshness)?.withheld)
  if (from304.date === undefined) headers.date = new Date(times.responseTime).toUTCString()
  const { requestTime, responseTime } = times
  const renewed = { ...stale, headers, requestTime, responseTime, initialAgeMs: initialAgeMs(from304, times.delayMs, responseTime) }
  return { ...renewed, keepUntil: keepUntil(options, stale.status, headers, responseTime, lifetimeMs(renewed, options.freshness), renewed.initialAgeMs) }
}

/** The base record that leads to a variant. It has no fields and no body of its own. */
export function indexRecord(variant: CacheMeta, vary: VaryIndex): CacheMeta {
  return { ...variant, headers: createHeaders(), keepUntil: variant.keepUntil + INDEX_EXTRA_MS, vary, length: 0 }
}

/** A response that can be confirmed, or served stale, is kept for a while after it went stale. */
function keepUntil(options: EngineOptions, status: number, headers: Readonly<HeaderMap>, responseTime: number, lifetime: number, initialAge: number): number {
  const control = responseControl(headers, options.freshness)
  const staleMs = Math.max(hasValidator(headers) ? options.keepStaleMs : 0, keptStaleMs(status, control, options.stale))
  return responseTime + Math.max(0, lifetime - initialAge + staleMs)
}
