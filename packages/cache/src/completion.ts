import { type BodySource, createHeaders, derive, discardBody, type Handler, type HeaderMap, neverAborted, type ProxyRequest, type ProxyResponse, toSource } from '@proxy/pipeline'
import { checkedBody } from './checked-body.ts'
import { contentRange } from './range.ts'
import { SequenceBody } from './sequence.ts'
import { type StoredParts, strongTag, wholeFields } from './stored-parts.ts'

/** Asks for what is missing of a part that is stored, and puts the two together (RFC 9111 section 3.4). Undefined when they do not fit. */
export async function complete(parts: StoredParts, key: string, request: ProxyRequest, next: Handler, plain: HeaderMap): Promise<ProxyResponse | undefined> {
  const part = await parts.find(key, 'all', undefined)
  if (part === undefined) return undefined
  const { entry, range } = part
  const tag = strongTag(entry.meta.headers)
  if (tag === undefined || range.start > 0) {
    entry.discard()
    return undefined
  }
  let first: BodySource
  try {
    first = toSource(checkedBody(await entry.open(), entry.meta.length, () => void parts.remove(key)))
  } catch (error) {
    await parts.broken(key, error)
    return undefined
  }
  const headers = createHeaders(plain)
  headers.range = `bytes=${range.end + 1}-`
  headers['if-range'] = tag
  let response: ProxyResponse
  try {
    response = await next(derive(request, { headers, signal: neverAborted }))
  } catch (error) {
    first.discard()
    throw error
  }
  const rest = response.status === 206 ? contentRange(response.headers) : undefined
  if (rest !== undefined && rest.start === range.end + 1 && rest.end === range.total - 1 && rest.total === range.total && strongTag(response.headers) === tag) {
    return { status: 200, headers: wholeFields(entry.meta.headers, response.headers, range.total), body: new SequenceBody(first, toSource(response.body), range.total) }
  }
  first.discard()
  if (response.status !== 206 && response.status !== 416) return response
  discardBody(response.body)
  await parts.remove(key)
  return undefined
}
