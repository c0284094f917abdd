import { hash } from 'node:crypto'
import { combined, type HeaderMap, type ProxyRequest } from '@proxy/pipeline'
import { normalised } from './selecting-fields.ts'
import type { VaryIndex } from './store.ts'

/** Longer field values enter a variant's key as their digest. Characters. */
const MAX_PLAIN_VALUE = 128

/** Namespace, scheme, authority, path and query: everything that selects what the origin is asked for. GET and HEAD share it. */
export function cacheKey(namespace: string, request: ProxyRequest): string {
  return `${namespace}|${requestUrl(request)}`
}

export function requestUrl(request: ProxyRequest): string {
  return `${request.scheme}://${request.authority}${request.target}`
}

/** Keys of what an unsafe request has changed: its target, and what Location and Content-Location name, as long as it is of the same origin (RFC 9111 section 4.4). */
export function changedKeys(namespace: string, request: ProxyRequest, headers: Readonly<HeaderMap>): Set<string> {
  const keys = new Set([cacheKey(namespace, request)])
  for (const named of [headers.location, headers['content-location']]) {
    const target = named === undefined ? undefined : sameOriginTarget(combined(named) as string, request)
    if (target !== undefined) keys.add(`${namespace}|${request.scheme}://${request.authority}${target}`)
  }
  return keys
}

/** Path and query of a reference that leads to the same origin. */
export function sameOriginTarget(reference: string, request: ProxyRequest): string | undefined {
  const base = requestUrl(request)
  if (!URL.canParse(base) || !URL.canParse(reference, base)) return undefined
  const [from, to] = [new URL(base), new URL(reference, base)]
  return from.origin === to.origin ? to.pathname + to.search : undefined
}

/** Field names of Vary: lower-case, sorted, each once. */
export function varyFields(vary: string | string[] | undefined): string[] {
  const text = combined(vary)
  if (text === undefined) return []
  const names = new Set<string>()
  for (const part of text.toLowerCase().split(',')) {
    const name = part.trim()
    if (name !== '') names.add(name)
  }
  return [...names].sort()
}

/** Key of the variant that a request selects. Fields are normalised where that does not change what they mean (RFC 9111 section 4.1); an absent field differs from an empty one. */
export function variantKey(base: string, vary: VaryIndex, headers: Readonly<HeaderMap>): string {
  let key = `${base}\n${vary.generation}`
  for (const name of vary.fields) {
    const value = combined(headers[name])
    if (value === undefined) key += '\n-'
    else {
      const normal = normalised(name, value)
      key += normal.length > MAX_PLAIN_VALUE ? `\n#${hash('sha256', normal, 'base64url')}` : `\n=${normal}`
    }
  }
  return key
}
