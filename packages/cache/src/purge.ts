import type { KeyRules } from './key-rules.ts'
import type { PurgeRecord, PurgeScope } from './purge-log.ts'

/** What to forget. Exactly one of `url`, `prefix`, `tag` and `all`. */
export interface Purge {
  /** A whole URL as clients ask for it: `https://images.example.org/a.png?w=2`, with all its variants. */
  readonly url?: string
  /** All URLs that begin like this: `https://images.example.org/2026/`. Scheme and host are whole. */
  readonly prefix?: string
  /** All responses with this surrogate key (Surrogate-Key, Cache-Tag or xkey). */
  readonly tag?: string
  readonly all?: true
  /** Makes it stale instead of removing it: it may be revalidated, and served while it is where that is allowed. Default false. */
  readonly soft?: boolean
}

export interface PurgeResult {
  /** Stored responses that were found and removed, or made stale. What is in a store that cannot be walked through is not counted, and is not served either. */
  readonly touched: number
  /** Not every store had been seen when the answer was due (`sweepWaitMs`), or one failed. The purge counts all the same; `touched` is what was found by then. */
  readonly partial?: true
}

/** The record of a purge. Throws TypeError when it says nothing, too much, or what no stored URL can be. */
export function purgeRecord(purge: Purge, namespace: string | undefined, at: number, keys: KeyRules): PurgeRecord {
  const { url, prefix, tag, all, soft = false } = purge
  const given = Object.entries({ url, prefix, tag, all }).filter(([, value]) => value !== undefined)
  if (given.length !== 1) throw new TypeError('a purge names exactly one of url, prefix, tag and all')
  const [scope, value] = given[0] as [PurgeScope, string | boolean]
  if (scope === 'all') {
    if (value !== true) throw new TypeError('all must be true')
    return { scope, value: '', namespace, at, soft }
  }
  if (typeof value !== 'string' || value === '') throw new TypeError(`${scope} is empty`)
  if (scope === 'tag') {
    if (/[\s,]/.test(value)) throw new TypeError('a tag has no spaces or commas')
    return { scope, value, namespace, at, soft }
  }
  return { scope, value: asStored(scope, value, keys), namespace, at, soft }
}

/** As stored: scheme and authority in lower case, a URL as far as it counts for the key. A URL has a path, a prefix a whole authority. */
function asStored(scope: 'url' | 'prefix', text: string, keys: KeyRules): string {
  const match = /^(https?):\/\/([^/?#\s]+)(\/[^#\s]*)?$/i.exec(text)
  if (match === null || (scope === 'prefix' && match[3] === undefined))
    throw new TypeError(`${scope} must be an http or https URL${scope === 'prefix' ? ' with a path, such as https://example.org/' : ''}, not ${JSON.stringify(text)}`)
  const [scheme, authority] = [(match[1] as string).toLowerCase(), (match[2] as string).toLowerCase()]
  const path = match[3] ?? '/'
  return scope === 'url' ? keys.url(scheme, authority, path) : keys.url(scheme, authority, '') + path
}
