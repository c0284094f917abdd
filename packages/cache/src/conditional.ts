import { combined, type HeaderMap } from '@proxy/pipeline'
import { parseHttpDate } from './http-date.ts'

/** Whether a GET or HEAD for this stored 200 is answered 304: RFC 9110 section 13.2.2, RFC 9111 section 4.3.2. */
export function notModified(request: Readonly<HeaderMap>, stored: Readonly<HeaderMap>): boolean {
  const ifNoneMatch = combined(request['if-none-match'])
  if (ifNoneMatch !== undefined) return matchesAny(ifNoneMatch, combined(stored.etag))
  const since = request['if-modified-since']
  if (since === undefined) return false
  const sinceMs = parseHttpDate(since)
  // Without Last-Modified, Date stands in for it: nothing has changed since the response was made.
  const modifiedMs = parseHttpDate(stored['last-modified'] ?? stored.date)
  return sinceMs !== undefined && modifiedMs !== undefined && modifiedMs <= sinceMs
}

/** Weak comparison against a list of entity tags (RFC 9110 section 8.8.3.2). A comma inside a quoted tag does not divide. */
function matchesAny(list: string, etag: string | undefined): boolean {
  if (list.trim() === '*') return true
  if (etag === undefined) return false
  if (list === etag) return true
  const opaque = withoutWeakness(etag)
  for (const match of list.matchAll(/"[^"]*"/g)) if (match[0] === opaque) return true
  return false
}

function withoutWeakness(etag: string): string {
  return etag.startsWith('W/') ? etag.slice(2) : etag
}

/** Whether a Range may be honoured: If-Range is absent, or names this very representation (strong comparison, RFC 9110 section 13.1.5). */
export function ifRangeHolds(request: Readonly<HeaderMap>, stored: Readonly<HeaderMap>): boolean {
  const ifRange = combined(request['if-range'])
  if (ifRange === undefined) return true
  if (ifRange.startsWith('"')) return ifRange === combined(stored.etag)
  if (ifRange.startsWith('W/')) return false
  const date = parseHttpDate(ifRange)
  const modified = parseHttpDate(stored['last-modified'])
  const sent = parseHttpDate(stored.date)
  // A date is a strong validator only when it lies a second or more before the response was made.
  return date !== undefined && date === modified && sent !== undefined && sent - modified >= 1000
}

/** Removes from a response's fields what describes a body that is not sent (RFC 9110 section 15.4.5). */
export function removeContentFields(headers: HeaderMap): void {
  for (const name in headers) if (name.startsWith('content-') && name !== 'content-location') delete headers[name]
}

/** Whether the origin can be asked if this response still holds. */
export function hasValidator(stored: Readonly<HeaderMap>): boolean {
  return stored.etag !== undefined || stored['last-modified'] !== undefined
}

/** Adds to the request the validators of a stored response. */
export function addValidators(headers: HeaderMap, stored: Readonly<HeaderMap>): void {
  const etag = combined(stored.etag)
  if (etag !== undefined) headers['if-none-match'] = etag
  const modified = combined(stored['last-modified'])
  if (modified !== undefined) headers['if-modified-since'] = modified
}

/** Whether a 304 speaks of the stored response: one with another entity tag does not (RFC 9111 section 4.3.4). */
export function confirms(from304: Readonly<HeaderMap>, stored: Readonly<HeaderMap>): boolean {
  const [confirmed, known] = [combined(from304.etag), combined(stored.etag)]
  return confirmed === undefined || known === undefined || withoutWeakness(confirmed) === withoutWeakness(known)
}

/** Conditions and ranges of the client, which a request that fills the cache must not carry. */
const conditions = ['if-none-match', 'if-modified-since', 'if-match', 'if-unmodified-since', 'if-range', 'range'] as const

export function removeConditions(headers: HeaderMap): void {
  for (const name of conditions) delete headers[name]
}

/** Fields of a 304 that do not replace stored ones: they describe the message, or the stored bytes and their place in the store (RFC 9111 section 3.2). */
const notUpdated: ReadonlySet<string> = new Set(['content-length', 'content-encoding', 'content-range', 'content-md5', 'transfer-encoding', 'trailer', 'age', 'vary', 'cache-status'])

/** Stored fields after a 304: what it brings replaces what was there. */
export function updateFields(stored: HeaderMap, from304: Readonly<HeaderMap>, withCookies: boolean): void {
  for (const name in from304) if (!notUpdated.has(name) && (withCookies || name !== 'set-cookie')) stored[name] = from304[name]
}
