import { hash } from 'node:crypto'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { framedLength } from '@proxy/cache/blocks'

/**
 * One file holds one entry:
 *
 * ```
 *  0  8  magic, the last byte is the format's number
 *  8 16  version: random, new for every write
 * 24 32  SHA-256 of the cache key
 * 56  8  length of the body
 * 64  4  capacity of a slot
 * 68  4  crc32 of bytes 0 to 67
 * 72  s  slot 0: metadata
 *     s  slot 1: metadata after a touch
 *        body in checksummed blocks (`@proxy/cache/blocks`)
 *
 * slot: u32be crc32(version, rest) | u32be sequence | u32be length | JSON
 * ```
 * Of the two slots the valid one with the higher sequence holds. A touch overwrites the other one in place, so whatever becomes of it, old or new metadata is
 * there; and because it writes into the open file, a put that renames a new file over it meanwhile wins.
 */
const MAGIC = Buffer.from('PXDISK\x00\x01', 'latin1')
export const FIXED_BYTES = 72
const SLOT_HEAD_BYTES = 12
/** Larger metadata is not stored. */
const MAX_META_BYTES = 256 * 1024
export const MAX_HEAD_BYTES = FIXED_BYTES + 2 * slotCapacity(MAX_META_BYTES)

/** Where a key's file lies. */
export interface EntryName {
  /** SHA-256 of the key. */
  readonly digest: Buffer
  /** The first 16 bytes of it in hex: the file's name. Keys that meet in one evict each other but never mix, because the file holds the whole digest. */
  readonly id: string
}

export function nameOf(key: string): EntryName {
  const digest = hash('sha256', key, 'buffer')
  return { digest, id: digest.toString('hex', 0, 16) }
}

/** The folders of a store. */
export class Places {
  readonly entries: string
  readonly temporary: string
  readonly index: string

  constructor(directory: string) {
    this.entries = join(directory, 'v1')
    this.temporary = join(directory, 'tmp')
    this.index = join(directory, 'index')
  }

  /** One of 256 folders: with two levels a million entries would spread over 65536 folders of a block each. */
  shard(id: string): string {
    return `${this.entries}/${id.slice(0, 2)}`
  }

  file(id: string): string {
    return `${this.entries}/${id.slice(0, 2)}/${id}`
  }
}

export interface FileHead {
  readonly version: string
  /** Bytes of the body. */
  readonly length: number
  readonly slotBytes: number
  /** Where the body begins. */
  readonly bodyStart: number
  /** Bytes of the whole file. */
  readonly fileBytes: number
}

/** Room for metadata that a touch makes somewhat larger. */
function slotCapacity(metaBytes: number): number {
  return SLOT_HEAD_BYTES + metaBytes + (metaBytes >> 2) + 128
}

/** What a body of this length takes behind metadata of that size. */
export function bodyStartOf(metaJson: Buffer): number {
  return FIXED_BYTES + 2 * slotCapacity(metaJson.byteLength)
}

export const isTooLargeMeta = (metaJson: Buffer): boolean => metaJson.byteLength > MAX_META_BYTES

/** Head and both slots of a new file. */
export function encodeHead(version: string, digest: Buffer, length: number, metaJson: Buffer): Buffer {
  const slotBytes = slotCapacity(metaJson.byteLength)
  const bytes = Buffer.alloc(FIXED_BYTES + 2 * slotBytes)
  bytes.set(MAGIC, 0)
  bytes.write(version, 8, 16, 'hex')
  bytes.set(digest, 24)
  bytes.writeBigUInt64BE(BigInt(length), 56)
  bytes.writeUInt32BE(slotBytes, 64)
  bytes.writeUInt32BE(crc32(bytes.subarray(0, 68)), 68)
  bytes.set(encodeSlot(version, 0, metaJson), FIXED_BYTES)
  return bytes
}

function encodeSlot(version: string, sequence: number, metaJson: Buffer): Buffer {
  const slot = Buffer.allocUnsafe(SLOT_HEAD_BYTES + metaJson.byteLength)
  slot.writeUInt32BE(sequence, 4)
  slot.writeUInt32BE(metaJson.byteLength, 8)
  slot.set(metaJson, SLOT_HEAD_BYTES)
  slot.writeUInt32BE(crc32(slot.subarray(4), crc32(version)), 0)
  return slot
}

/** The digest of the key that a file says it is for; undefined where it is too short for one. */
export function digestIn(bytes: Buffer): Buffer | undefined {
  return bytes.byteLength < FIXED_BYTES ? undefined : bytes.subarray(24, 56)
}

/** Reads the fixed part. `unknown`: of another format, which another version of this package may still want; `foreign`: another key's. */
export function decodeHead(bytes: Buffer, digest: Buffer): FileHead | 'broken' | 'unknown' | 'foreign' {
  if (bytes.byteLength < FIXED_BYTES || bytes.compare(MAGIC, 0, 7, 0, 7) !== 0) return 'broken'
  if (bytes.readUInt32BE(68) !== crc32(bytes.subarray(0, 68))) return 'broken'
  if (bytes[7] !== MAGIC[7]) return 'unknown'
  if (bytes.compare(digest, 0, 32, 24, 56) !== 0) return 'foreign'
  const length = Number(bytes.readBigUInt64BE(56))
  const slotBytes = bytes.readUInt32BE(64)
  const bodyStart = FIXED_BYTES + 2 * slotBytes
  if (slotBytes < SLOT_HEAD_BYTES || bodyStart > MAX_HEAD_BYTES) return 'broken'
  return { version: bytes.toString('hex', 8, 24), length, slotBytes, bodyStart, fileBytes: bodyStart + framedLength(length) }
}

interface Slot {
  readonly sequence: number
  readonly at: number
  readonly json: Buffer
}

/** The metadata that holds, from bytes that reach up to the body; undefined when neither slot is whole. */
function currentSlot(bytes: Buffer, { version, slotBytes }: FileHead): Slot | undefined {
  let current: Slot | undefined
  for (const at of [FIXED_BYTES, FIXED_BYTES + slotBytes]) {
    const length = bytes.readUInt32BE(at + 8)
    if (length === 0 || length > slotBytes - SLOT_HEAD_BYTES) continue
    const end = at + SLOT_HEAD_BYTES + length
    if (bytes.readUInt32BE(at) !== crc32(bytes.subarray(at + 4, end), crc32(version))) continue
    const sequence = bytes.readUInt32BE(at + 4)
    if (current === undefined || sequence > current.sequence) current = { sequence, at, json: bytes.subarray(at + SLOT_HEAD_BYTES, end) }
  }
  return current
}

export function currentMeta(bytes: Buffer, head: FileHead): Buffer | undefined {
  return currentSlot(bytes, head)?.json
}

/** What a touch has to write, and where; undefined when the metadata does not fit or what is there is broken. */
export function nextSlot(bytes: Buffer, head: FileHead, metaJson: Buffer): { at: number; slot: Buffer } | undefined {
  const current = currentSlot(bytes, head)
  if (current === undefined || SLOT_HEAD_BYTES + metaJson.byteLength > head.slotBytes) return undefined
  const at = current.at === FIXED_BYTES ? FIXED_BYTES + head.slotBytes : FIXED_BYTES
  return { at, slot: encodeSlot(head.version, current.sequence + 1, metaJson) }
}
