import { type ByteRange, combined, discardBody, type HeaderMap, type ProxyRequest, type ProxyResponse } from '@proxy/pipeline'
import { wholeOf } from './checked-body.ts'
import { ifRangeHolds, notModified, removeContentFields } from './conditional.ts'
import { MultipartBody } from './multipart.ts'
import { asksForAll, type RangeDecision, requestedRange } from './range.ts'
import type { CacheEntry, CacheMeta, CacheStore } from './store.ts'

/**
 * Answers from an entry: 304, 206, 416, or whole. `meta` is the entry's, or what a 304 has made of it; `headers` are those of the whole answer, and are used up.
 * Opens or discards the entry. Rejects when its body is gone.
 */
export async function answerFrom(entry: CacheEntry, meta: CacheMeta, headers: HeaderMap, request: ProxyRequest, store: CacheStore, key: string): Promise<ProxyResponse> {
  const asked = request.headers
  const { status } = meta
  if (status === 200 && isConditional(asked) && notModified(asked, meta.headers)) {
    entry.discard()
    removeContentFields(headers)
    return { status: 304, headers, body: null }
  }
  if (request.method === 'HEAD') {
    entry.discard()
    return { status, headers, body: null }
  }
  const { length } = entry.meta
  const range: RangeDecision = asked.range !== undefined && status === 200 && ifRangeHolds(asked, meta.headers) ? requestedRange(asked, length) : 'ignore'
  if (range === 'ignore') return { status, headers, body: wholeOf(await entry.open(), entry, undefined, store, key) }
  if (range === 'unsatisfiable') {
    entry.discard()
    removeContentFields(headers)
    headers['content-range'] = `bytes */${length}`
    return { status: 416, headers, body: null }
  }
  if ('start' in range) return partial(headers, range, length, wholeOf(await entry.open(range), entry, range, store, key))
  const body = new MultipartBody(store, key, entry, range, wholeOf(await entry.open(range[0]), entry, range[0], store, key), combined(headers['content-type']))
  headers['content-type'] = body.contentType
  headers['content-length'] = String(body.length)
  return { status: 206, headers, body }
}

function partial(headers: HeaderMap, range: ByteRange, length: number, body: ProxyResponse['body']): ProxyResponse {
  headers['content-range'] = `bytes ${range.start}-${range.end}/${length}`
  headers['content-length'] = String(range.end - range.start + 1)
  return { status: 206, headers, body }
}

function isConditional(headers: Readonly<HeaderMap>): boolean {
  return headers['if-none-match'] !== undefined || headers['if-modified-since'] !== undefined
}

/** An answer of the origin to a request without conditions or range, as the client asked for it: 304 where its own conditions say so, 206 where it asked for all as one part. */
export function applyConditions(response: ProxyResponse, request: ProxyRequest): ProxyResponse {
  if (response.status !== 200) return response
  const { headers } = response
  if (isConditional(request.headers) && notModified(request.headers, headers)) {
    discardBody(response.body)
    removeContentFields(headers)
    return { status: 304, headers, body: null }
  }
  const length = headers['content-length']
  if (!asksForAll(request) || typeof length !== 'string' || !/^[1-9]\d{0,14}$/.test(length) || !ifRangeHolds(request.headers, headers)) return response
  headers['content-range'] = `bytes 0-${Number(length) - 1}/${length}`
  return { ...response, status: 206 }
}
