import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { DISK_BLOCK_BYTES } from './entry-index.ts'
import type { Id } from './index-shard.ts'
import type { DiskFile, DiskIo } from './io.ts'
import type { Places } from './layout.ts'
import type { Owner } from './owner.ts'

/** A change of the index: an entry of that many blocks, or none any more. */
export interface Change {
  readonly id: Id
  readonly blocks: number
}

/** `id (16) | blocks (4), 0 for a removal | crc32 (4)`, big endian. */
export const RECORD_BYTES = 24
/** Records that wait at most; beyond, the oldest are lost and the directory is walked some day. */
const MAX_WAITING_RECORDS = 100_000
export const JOURNAL_SUFFIX = '.journal'

export function encodeRecord(into: Buffer, at: number, { id, blocks }: Change): void {
  for (let i = 0; i < 4; i++) into.writeUInt32BE(id[i] as number, at + 4 * i)
  into.writeUInt32BE(blocks, at + 16)
  into.writeUInt32BE(crc32(into.subarray(at, at + 20)), at + 20)
}

/** Applies every whole record in `bytes`; damaged ones are passed over. */
export function applyRecords(bytes: Buffer, apply: (change: Change) => void): void {
  for (let at = 0; at + RECORD_BYTES <= bytes.byteLength; at += RECORD_BYTES) {
    if (bytes.readUInt32BE(at + 20) !== crc32(bytes.subarray(at, at + 20))) continue
    apply({ id: [bytes.readUInt32BE(at), bytes.readUInt32BE(at + 4), bytes.readUInt32BE(at + 8), bytes.readUInt32BE(at + 12)], blocks: bytes.readUInt32BE(at + 16) })
  }
}

/** The changes that this store made since its last snapshot, in a file that it alone writes and others read. */
export class Journal {
  /** Bytes of files announced by records that are not written yet. */
  waitingFileBytes = 0
  /** Set when records were lost. */
  lossy = false
  private readonly io: DiskIo
  private readonly places: Places
  private readonly owner: Owner
  private waiting: Change[] = []
  private file: DiskFile | undefined
  private position = 0
  private number = 0
  private flushing: Promise<void> | undefined

  constructor(io: DiskIo, places: Places, owner: Owner) {
    this.io = io
    this.places = places
    this.owner = owner
  }

  /** Bytes in the file. */
  get size(): number {
    return this.position
  }

  get path(): string {
    return join(this.places.index, this.name)
  }

  get name(): string {
    return `${this.owner.name}.${this.number}${JOURNAL_SUFFIX}`
  }

  add(change: Change): void {
    if (this.waiting.length >= MAX_WAITING_RECORDS) {
      this.lossy = true
      return
    }
    this.waiting.push(change)
    this.waitingFileBytes += change.blocks * DISK_BLOCK_BYTES
  }

  /** Writes what waits. Rejects with what the system says; the records then go on waiting. */
  flush(): Promise<void> {
    this.flushing ??= this.write().finally(() => {
      this.flushing = undefined
    })
    return this.flushing
  }

  private async write(): Promise<void> {
    const count = this.waiting.length
    if (count === 0) return
    const bytes = Buffer.allocUnsafe(count * RECORD_BYTES)
    for (const [i, change] of this.waiting.entries()) encodeRecord(bytes, i * RECORD_BYTES, change)
    this.file ??= await this.io.openNew(this.path, this.places.index)
    // At a place of its own: what a failed try left there is written over.
    await this.file.write(bytes, this.position)
    this.position += bytes.byteLength
    this.waiting = this.waiting.slice(count)
    this.waitingFileBytes = this.waiting.reduce((sum, { blocks }) => sum + blocks * DISK_BLOCK_BYTES, 0)
  }

  /** Begins a new file; the path of the one before, which a snapshot makes superfluous. */
  async rotate(): Promise<string | undefined> {
    // Whoever began that flush hears that it failed, and its records wait for the new file.
    await this.flushing?.catch(() => {})
    const before = this.file === undefined ? undefined : this.path
    this.close()
    this.number++
    this.position = 0
    return before
  }

  close(): void {
    this.file?.close()
    this.file = undefined
  }
}
