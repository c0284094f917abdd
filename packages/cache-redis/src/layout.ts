import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'
import type { CacheMeta, StoredMeta } from '@proxy/cache'
import { createHeaders } from '@proxy/pipeline'

/**
 * How an entry lies in Redis: one hash per key, which Redis drops at `meta.keepUntil` (PEXPIREAT).
 *
 * ```
 * prefix + key      v  version: `id.length`, where length is the body's in bytes
 *                   m  metadata, JSON, without its length
 *                   c  CRC-32 of version and metadata, 8 hex digits
 *                   0  first block of the body, 1 the second … (@proxy/cache/blocks, under the version `id`)
 * ```
 * Blocks are fields, so that one HMGET brings what is wanted of metadata and body from one moment, and a range only its blocks.
 */
export const FIELDS = { version: 'v', meta: 'm', checksum: 'c' } as const

export const HEAD_FIELDS = [FIELDS.version, FIELDS.meta, FIELDS.checksum]

const MAX_READABLE_KEY = 200
const HEAD_OF_HASHED_KEY = 160

/**
 * Name of the Redis key. Up to 200 characters it is readable: prefix and key. A longer one is its first 160 characters, `~` and its SHA-256, 204 in all:
 * longer than any readable one, so nobody can ask for a short key that is the name of somebody's long one.
 */
export function redisKey(prefix: string, key: string): string {
  // Unpaired surrogates all become the same replacement character on the wire.
  if (key.length <= MAX_READABLE_KEY && key.isWellFormed()) return prefix + key
  const digest = createHash('sha256').update(key, 'utf16le').digest('base64url')
  return `${prefix}${key.slice(0, HEAD_OF_HASHED_KEY).toWellFormed().padEnd(HEAD_OF_HASHED_KEY, '~')}~${digest}`
}

export function versionOf(id: string, bodyLength: number): string {
  return `${id}.${bodyLength}`
}

/** The metadata as stored; its length is part of the version, so that `touch` cannot change it. */
export function encodeMeta(meta: CacheMeta): string {
  return JSON.stringify({ ...meta, length: undefined })
}

export function metaChecksum(version: string | Buffer, meta: string | Buffer): string {
  return crc32(meta, crc32(version)).toString(16).padStart(8, '0')
}

/** Id and body length that a version consists of. */
export interface DecodedHead {
  readonly version: string
  readonly id: string
  readonly meta: StoredMeta
}

/** `broken`: not what was written. `unknown`: written by somebody who knows another format. */
export function decodeHead(version: Buffer, meta: Buffer | null, checksum: Buffer | null): DecodedHead | 'broken' | 'unknown' {
  if (meta === null || checksum === null || checksum.toString('latin1') !== metaChecksum(version, meta)) return 'broken'
  // The checksum holds, so these bytes are what was written.
  const text = version.toString('latin1')
  const dot = text.lastIndexOf('.')
  const length = Number(text.slice(dot + 1))
  const record = parsed(meta)
  if (dot < 1 || !Number.isSafeInteger(length) || length < 0 || record?.v !== 1) return 'unknown'
  return { version: text, id: text.slice(0, dot), meta: { ...record, headers: createHeaders(record.headers), length } }
}

function parsed(meta: Buffer): CacheMeta | undefined {
  try {
    return JSON.parse(meta.toString()) as CacheMeta
  } catch {
    // somebody's own format under our field names
    return undefined
  }
}
