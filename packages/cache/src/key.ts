import { hash } from 'node:crypto'
import { combined, type HeaderMap, type ProxyRequest } from '@proxy/pipeline'
import { type KeyRules, selectingValue } from './key-rules.ts'
import { normalised } from './selecting-fields.ts'
import type { VaryIndex } from './store.ts'

/** Longer field values enter a variant's key as their digest. Characters. */
const MAX_PLAIN_VALUE = 128

export function requestUrl(request: ProxyRequest): string {
  return `${request.scheme}://${request.authority}${request.target}`
}

/** Keys of what an unsafe request has changed: its target, and what Location and Content-Location name, as long as it is of the same origin (RFC 9111 section 4.4). */
export function changedKeys(keys: KeyRules, request: ProxyRequest, headers: Readonly<HeaderMap>): Set<string> {
  const changed = new Set([keys.key(request)])
  for (const named of [headers.location, headers['content-location']]) {
    const target = named === undefined ? undefined : sameOriginTarget(combined(named) as string, request)
    if (target !== undefined) changed.add(keys.keyOf(request.scheme, request.authority, target))
  }
  return changed
}

/** Path and query of a reference that leads to the same origin. */
export function sameOriginTarget(reference: string, request: ProxyRequest): string | undefined {
  const base = requestUrl(request)
  if (!URL.canParse(base) || !URL.canParse(reference, base)) return undefined
  const [from, to] = [new URL(base), new URL(reference, base)]
  return from.origin === to.origin ? to.pathname + to.search : undefined
}

/** Field names of Vary and what else counts: lower-case, sorted, each once. */
export function varyFields(vary: string | string[] | undefined, always: readonly string[] = none): readonly string[] {
  const text = combined(vary)
  if (text === undefined) return always
  const names = new Set(always)
  for (const part of text.toLowerCase().split(',')) {
    const name = part.trim()
    if (name !== '') names.add(name)
  }
  return [...names].sort()
}

/** Key of the variant that a request selects. Fields are reduced to what is listed of them, or normalised where that does not change what they mean (RFC 9111 section 4.1); an absent field differs from an empty one. */
export function variantKey(base: string, vary: VaryIndex, headers: Readonly<HeaderMap>, { negotiation }: KeyRules): string {
  let key = `${base}\n${vary.generation}`
  for (const name of vary.fields) {
    const value = selectingValue(headers, name)
    const negotiated = negotiation.read(name, value)
    if (negotiated !== undefined) key += `\n~${negotiated}`
    else if (value === undefined) key += '\n-'
    else {
      const normal = normalised(name, value)
      key += normal.length > MAX_PLAIN_VALUE ? `\n#${hash('sha256', normal, 'base64url')}` : `\n=${normal}`
    }
  }
  return key
}

const none: readonly string[] = []
