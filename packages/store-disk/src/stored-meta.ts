import type { CacheMeta, StoredMeta } from '@proxy/cache'
import { createHeaders } from '@proxy/pipeline'

/** The metadata in `json`, its headers without a prototype; undefined when it is not metadata at all. */
export function parseMeta(json: Buffer, length: number): StoredMeta | undefined {
  try {
    const meta = JSON.parse(json.toString()) as CacheMeta
    return typeof meta !== 'object' || meta === null ? undefined : { ...meta, headers: createHeaders(meta.headers), length }
  } catch {
    // Its checksum is right, so it was written like this: not by this package.
    return undefined
  }
}
