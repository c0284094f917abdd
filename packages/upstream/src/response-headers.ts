import { combined, connectionOptions, createHeaders, type HeaderMap, isHopByHop } from '@proxy/pipeline'

/** Fields as undici gives them: an object with a prototype. */
export type Fields = Record<string, string | string[] | undefined>

/** The origin's fields without those of the connection, with this hop in Via. */
export function responseHeaders(fields: Fields, via: string | false): HeaderMap {
  const headers = createHeaders()
  const listed = connectionOptions(fields.connection)
  for (const name in fields) if (!isHopByHop(name) && !listed?.has(name)) headers[name] = trimmed(fields[name])
  if (via !== false) {
    const before = combined(headers.via)
    headers.via = before === undefined ? `1.1 ${via}` : `${before}, 1.1 ${via}`
  }
  return headers
}

/** Undefined when there are none. */
export function trailersOf(fields: Fields | undefined): HeaderMap | undefined {
  let trailers: HeaderMap | undefined
  for (const name in fields) {
    if (isHopByHop(name)) continue
    trailers ??= createHeaders()
    trailers[name] = trimmed(fields[name])
  }
  return trailers
}

/** RFC 9112 section 5: white space around a value is not part of it; undici's parser leaves what follows. */
function trimmed(value: string | string[] | undefined): string | string[] | undefined {
  if (typeof value !== 'string') return value?.map(withoutEnd)
  return withoutEnd(value)
}

function withoutEnd(value: string): string {
  let end = value.length
  while (end > 0 && isWhiteSpace(value.charCodeAt(end - 1))) end--
  return end === value.length ? value : value.slice(0, end)
}

function isWhiteSpace(char: number): boolean {
  return char === 32 || char === 9
}
