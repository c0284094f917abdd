import type { HeaderMap } from './types.ts'

/**
 * Null-prototype objects that V8 keeps in fast mode: `Object.create(null)` makes dictionaries, which are some 0.5 us slower to fill and to walk.
 * No key is special: `__proto__` and `constructor` are fields like any other.
 */
function NullPrototype(): void {}
NullPrototype.prototype = Object.freeze(Object.create(null))
const FieldMap = NullPrototype as unknown as new () => HeaderMap

/** An empty header map, or a copy of `from` that may be changed (arrays are shared: replace, never push). */
export function createHeaders(from?: Readonly<HeaderMap>): HeaderMap {
  const headers = new FieldMap()
  if (from !== undefined) for (const name in from) headers[name] = from[name]
  return headers
}

/** Adds a line, keeping the ones before it. `name` is lower-case. */
export function appendHeader(headers: HeaderMap, name: string, value: string): void {
  const present = headers[name]
  if (present === undefined) headers[name] = value
  else if (typeof present === 'string') headers[name] = [present, value]
  else headers[name] = [...present, value]
}

/** The lines of a list-valued field as one, joined by ", " (RFC 9110 section 5.3). Not for Set-Cookie. */
export function combined(value: string | string[] | undefined): string | undefined {
  return typeof value === 'object' ? value.join(', ') : value
}

/** The value of a field that may appear only once: undefined when it is absent or repeated. */
export function single(value: string | string[] | undefined): string | undefined {
  if (typeof value !== 'object') return value
  return value.length === 1 ? value[0] : undefined
}

/** Flat name, value, name, value … as node:http's `rawHeaders` gives them. Every line is kept; nothing is dropped or joined. */
export function headersFromRaw(raw: readonly string[]): HeaderMap {
  const headers = new FieldMap()
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = (raw[i] as string).toLowerCase()
    const value = raw[i + 1] as string
    if (headers[name] === undefined) headers[name] = value
    else appendHeader(headers, name, value)
  }
  return headers
}

/** The opposite of `headersFromRaw`: what `outgoing.writeHead` takes, one pair per line. */
export function headersToRaw(headers: Readonly<HeaderMap>): string[] {
  const raw: string[] = []
  for (const name in headers) {
    const value = headers[name]
    if (typeof value === 'string') raw.push(name, value)
    else if (value !== undefined) for (const line of value) raw.push(name, line)
  }
  return raw
}
