import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { type EntryIndex, SHARDS } from './entry-index.ts'
import { isAbsent } from './errors.ts'
import { ENTRY_WORDS } from './index-shard.ts'
import type { DiskFile, DiskIo } from './io.ts'
import type { Places } from './layout.ts'

/**
 * The index in one file, so that a start need not walk the directory. Numbers are in the machine's order, which the magic gives away.
 *
 * ```
 * magic, tick, crc32 of what follows up to the shards   3 words
 * entries and crc32 of each shard                       2 * 256 words
 * the shards' entries
 * ```
 */
const MAGIC = 0x5058_4931
const HEAD_BYTES = (3 + 2 * SHARDS) * 4
const NAME = 'snapshot'

const bytesOf = (words: Uint32Array): Uint8Array => new Uint8Array(words.buffer, words.byteOffset, words.byteLength)

/** Writes the index beside the one before and replaces it. Shard by shard: what changes meanwhile is in the journal, which began before. */
export async function writeSnapshot(io: DiskIo, places: Places, index: EntryIndex, temporaryName: string): Promise<void> {
  const temporary = join(places.temporary, temporaryName)
  const file = await io.openNew(temporary, places.temporary)
  try {
    const head = new Uint32Array(HEAD_BYTES / 4)
    let position = HEAD_BYTES
    for (let shard = 0; shard < SHARDS; shard++) {
      const bytes = bytesOf(index.copyShard(shard))
      head[3 + 2 * shard] = bytes.byteLength / (ENTRY_WORDS * 4)
      head[4 + 2 * shard] = crc32(bytes)
      if (bytes.byteLength > 0) await file.write(bytes, position)
      position += bytes.byteLength
    }
    head[0] = MAGIC
    head[1] = index.tick
    head[2] = crc32(bytesOf(head.subarray(3)))
    await file.write(bytesOf(head), 0)
    await io.rename(temporary, join(places.index, NAME))
  } catch (error) {
    // It is of no use; where it cannot be removed now, the next start does.
    await io.unlink(temporary).catch(() => {})
    throw error
  } finally {
    file.close()
  }
}

/** Adds what the snapshot holds to the index. False when there is none or a part of it is broken: the directory has to be walked. Rejects with what the system says. */
export async function readSnapshot(io: DiskIo, places: Places, index: EntryIndex): Promise<boolean> {
  let file: DiskFile
  try {
    file = await io.open(join(places.index, NAME), 'r', 'write')
  } catch (error) {
    if (isAbsent(error)) return false
    throw error
  }
  try {
    const head = new Uint32Array(HEAD_BYTES / 4)
    if ((await file.read(bytesOf(head), 0)) < HEAD_BYTES || head[0] !== MAGIC || head[2] !== crc32(bytesOf(head.subarray(3)))) return false
    if (index.tick < (head[1] as number)) index.tick = head[1] as number
    let position = HEAD_BYTES
    let whole = true
    const { size } = await file.stat()
    for (let shard = 0; shard < SHARDS; shard++) {
      const byteLength = (head[3 + 2 * shard] as number) * ENTRY_WORDS * 4
      if (position + byteLength > size) return false
      const words = new Uint32Array(byteLength / 4)
      await file.read(bytesOf(words), position)
      if (crc32(bytesOf(words)) === head[4 + 2 * shard]) index.mergeShard(shard, words)
      else whole = false
      position += byteLength
    }
    return whole
  } finally {
    file.close()
  }
}
