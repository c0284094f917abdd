import type { HeaderMap } from '@proxy/pipeline'
import type { CacheMeta } from './store.ts'

/**
 * What V8 takes for the objects of an entry beside its texts: the entry, its record, the two promises of a hit, the places in the tables of the store, and what
 * the cache before it works out at the first hit (some 400 of these). Measured, as the other numbers here: see test/entry-bytes.test.ts.
 */
const ENTRY_BYTES = 830
/** A text beside its characters, and where it is referred to. */
const TEXT_BYTES = 24
/** The same for a field's value, which a hit refers to from a second map. Names are shared between entries. */
const FIELD_BYTES = 40
/** A map with more fields is kept by V8 as a hash table: 24 bytes a slot, the number of slots a power of two. */
const MAX_FAST_FIELDS = 20

/** What an entry takes beside its body. */
export function metaBytes(key: string, meta: CacheMeta): number {
  // The URL is kept as a part of the key where it is all that follows the namespace.
  let bytes = ENTRY_BYTES + key.length + (key.length === key.indexOf('|') + 1 + meta.url.length ? 0 : meta.url.length) + headerBytes(meta.headers)
  for (const tag of meta.tags) bytes += TEXT_BYTES + tag.length
  if (meta.vary !== undefined) for (const name of meta.vary.fields) bytes += TEXT_BYTES + name.length
  return bytes
}

function headerBytes(headers: Readonly<HeaderMap>): number {
  let fields = 0
  let bytes = 0
  for (const name in headers) {
    const value = headers[name]
    if (value === undefined) continue
    fields++
    bytes += FIELD_BYTES
    if (typeof value === 'string') bytes += value.length
    else for (const line of value) bytes += TEXT_BYTES + line.length
  }
  return fields <= MAX_FAST_FIELDS ? bytes : bytes + 2 * 24 * 2 ** Math.ceil(Math.log2(1.5 * fields))
}
