import { join } from 'node:path'
import { isAbsent } from './errors.ts'
import type { DiskFile, DiskIo } from './io.ts'
import { applyRecords, type Change, JOURNAL_SUFFIX, RECORD_BYTES } from './journal.ts'
import type { Places } from './layout.ts'
import { ABANDONED_AFTER_MS, isGone, type Owner } from './owner.ts'

const PIECE_BYTES = 10_000 * RECORD_BYTES

interface Tail {
  readonly file: DiskFile
  position: number
}

/** The journals of other stores on the same directory, those that run and those that are gone: read as they grow. */
export class OtherJournals {
  private readonly io: DiskIo
  private readonly places: Places
  private readonly owner: Owner
  private readonly tails = new Map<string, Tail>()
  private readonly done = new Set<string>()

  constructor(io: DiskIo, places: Places, owner: Owner) {
    this.io = io
    this.places = places
    this.owner = owner
  }

  /** Journals that nobody writes any more and that were read to their end: superfluous once a snapshot is written. */
  get finished(): readonly string[] {
    return [...this.done]
  }

  /** Applies what is new. Rejects with what the system says. */
  async read(apply: (change: Change) => void): Promise<void> {
    const names = await this.list()
    for (const name of names) if (!this.tails.has(name) && !this.done.has(name)) await this.follow(name)
    for (const [name, tail] of this.tails) {
      const isOver = !names.has(name) || (await this.isAbandoned(name))
      await this.readOn(tail, apply)
      if (!isOver) continue
      tail.file.close()
      this.tails.delete(name)
      if (names.has(name)) this.done.add(name)
    }
    for (const name of this.done) if (!names.has(name)) this.done.delete(name)
  }

  /** Removes journals that a snapshot has made superfluous. */
  async remove(names: readonly string[]): Promise<void> {
    for (const name of names) {
      // Another store may have done it; where it cannot be removed, it is read once more by the next start, which changes nothing.
      await this.io.unlink(join(this.places.index, name)).catch(() => {})
      this.done.delete(name)
    }
  }

  close(): void {
    for (const { file } of this.tails.values()) file.close()
    this.tails.clear()
  }

  private async list(): Promise<Set<string>> {
    try {
      const names = await this.io.readdir(this.places.index)
      return new Set(names.filter((name) => name.endsWith(JOURNAL_SUFFIX) && !name.startsWith(this.owner.name)))
    } catch (error) {
      if (isAbsent(error)) return new Set()
      throw error
    }
  }

  private async follow(name: string): Promise<void> {
    try {
      this.tails.set(name, { file: await this.io.open(join(this.places.index, name), 'r', 'write'), position: 0 })
    } catch (error) {
      if (!isAbsent(error)) throw error
    }
  }

  private async isAbandoned(name: string): Promise<boolean> {
    const gone = isGone(name)
    if (gone !== 'unknown') return gone === true
    const { mtimeMs } = await (this.tails.get(name) as Tail).file.stat()
    return Date.now() - mtimeMs > ABANDONED_AFTER_MS
  }

  private async readOn(tail: Tail, apply: (change: Change) => void): Promise<void> {
    for (;;) {
      const piece = Buffer.allocUnsafeSlow(Math.min(PIECE_BYTES, Math.max(0, (await tail.file.stat()).size - tail.position)))
      const whole = piece.byteLength - (piece.byteLength % RECORD_BYTES)
      if (whole === 0) return
      const got = await tail.file.read(piece.subarray(0, whole), tail.position)
      const records = got - (got % RECORD_BYTES)
      applyRecords(piece.subarray(0, records), apply)
      tail.position += records
      if (records < PIECE_BYTES) return
    }
  }
}
