import { crc32 } from 'node:zlib'
import { framedLength } from '@proxy/cache/blocks'

/**
 * One object holds one entry:
 *
 * ```
 *  0  8  magic, the last byte is the format's number
 *  8 16  version: random, new for every write
 * 24 32  SHA-256 of the cache key
 * 56  8  length of the body
 * 64  4  length of the metadata
 * 68  4  crc32 of bytes 0 to 67 and the metadata
 * 72  m  metadata, JSON
 *        body in checksummed blocks (`@proxy/cache/blocks`)
 * ```
 * The head says how long the object has to be, so a truncated, extended or foreign object is told from its first bytes and its Content-Length.
 */
const MAGIC = Buffer.from('PXCACHE\x01', 'latin1')
export const FIXED_BYTES = 72
/** What is read to get at the metadata: metadata that does not fit with the fixed part is not stored. */
export const HEAD_BYTES = 32 * 1024
export const MAX_META_BYTES = HEAD_BYTES - FIXED_BYTES

export interface ObjectHead {
  /** Lower-case hex. */
  readonly version: string
  readonly keyDigest: string
  /** Bytes of the body. */
  readonly length: number
  readonly metaJson: Buffer
}

/** The head of an object: fixed part and metadata. */
export function encodeHead(head: ObjectHead): Buffer {
  const bytes = Buffer.allocUnsafe(FIXED_BYTES + head.metaJson.byteLength)
  bytes.set(MAGIC, 0)
  bytes.write(head.version, 8, 16, 'hex')
  bytes.write(head.keyDigest, 24, 32, 'hex')
  bytes.writeBigUInt64BE(BigInt(head.length), 56)
  bytes.writeUInt32BE(head.metaJson.byteLength, 64)
  bytes.set(head.metaJson, FIXED_BYTES)
  bytes.writeUInt32BE(headChecksum(bytes), 68)
  return bytes
}

const headChecksum = (bytes: Buffer): number => crc32(bytes.subarray(FIXED_BYTES), crc32(bytes.subarray(0, 68)))

/** Bytes of the whole object. */
export const objectSize = (head: ObjectHead): number => FIXED_BYTES + head.metaJson.byteLength + framedLength(head.length)

/**
 * Bytes of head that an object's first `FIXED_BYTES` announce. `broken`: not an object of ours. `unknown`: one of another format, which a newer or older
 * version of this package may still want.
 */
export function headLength(bytes: Buffer): number | 'broken' | 'unknown' {
  if (bytes.compare(MAGIC, 0, 7, 0, 7) !== 0) return 'broken'
  if (bytes[7] !== MAGIC[7]) return 'unknown'
  const length = FIXED_BYTES + bytes.readUInt32BE(64)
  return length <= HEAD_BYTES ? length : 'broken'
}

/** Reads the head that lies in `bytes`, exactly as long as `headLength` said; undefined when its checksum fails. */
export function decodeHead(bytes: Buffer): ObjectHead | undefined {
  if (bytes.readUInt32BE(68) !== headChecksum(bytes)) return undefined
  return {
    version: bytes.toString('hex', 8, 24),
    keyDigest: bytes.toString('hex', 24, 56),
    length: Number(bytes.readBigUInt64BE(56)),
    metaJson: bytes.subarray(FIXED_BYTES)
  }
}
