import { join } from 'node:path'
import type { PurgeRecord } from '@proxy/cache'
import { DiskError, isAbsent } from './errors.ts'
import type { DiskFile, DiskIo } from './io.ts'
import { ABANDONED_AFTER_MS, isGone, type Owner } from './owner.ts'
import { PURGES_SUFFIX } from './purge-journal.ts'
import { decodeLine, MAX_LINE_BYTES } from './purge-lines.ts'

const PIECE_BYTES = 64 * 1024
const LINE_FEED = 10
/** Listings in a row during which another log replaced its journal. */
const MAX_LISTINGS = 10

export interface PurgeJournalsHost {
  readonly io: DiskIo
  readonly folder: string
  readonly owner: Owner
  readonly apply: (record: PurgeRecord) => void
  /** Told of a journal in which something that was written is not what it was. */
  readonly onBroken: () => void
}

interface Tail {
  readonly file: DiskFile
  position: number
  /** A line before `position` was broken. The last one of a journal may be: its write was cut off, and nobody was told that it counts. */
  broken: boolean
}

/** The journals of other logs in the folder, of those that run and those that are gone: read as they grow. */
export class PurgeJournals {
  private readonly host: PurgeJournalsHost
  private readonly tails = new Map<string, Tail>()

  constructor(host: PurgeJournalsHost) {
    this.host = host
  }

  /** Applies what is new. Resolves to the names of all files in the folder. Rejects with what the system says. */
  async read(): Promise<readonly string[]> {
    for (let listing = 0; listing < MAX_LISTINGS; listing++) {
      const names = await this.list()
      if (await this.readListed(names)) return names
    }
    throw new DiskError('busy')
  }

  /** The journals read so far that nobody writes to any more. */
  async abandoned(): Promise<readonly string[]> {
    const found: string[] = []
    for (const [name, { file }] of this.tails) {
      const gone = isGone(name)
      if (gone === true || (gone === 'unknown' && Date.now() - (await file.stat()).mtimeMs > ABANDONED_AFTER_MS)) found.push(name)
    }
    return found
  }

  /**
   * Gives a journal another name and reads it to its end. A log that is not gone after all finds at its next write that its journal is not in place, and writes a
   * new one; what it wrote before that is read here.
   */
  async takeOver(name: string, newName: string): Promise<void> {
    const { io, folder } = this.host
    try {
      await io.rename(join(folder, name), join(folder, newName))
    } catch (error) {
      // Another log has done it.
      if (isAbsent(error)) return
      throw error
    }
    const tail = this.tails.get(name)
    if (tail === undefined) return
    await this.readOn(tail)
    tail.file.close()
    this.tails.delete(name)
  }

  close(): void {
    for (const { file } of this.tails.values()) file.close()
    this.tails.clear()
  }

  private async list(): Promise<string[]> {
    try {
      return await this.host.io.readdir(this.host.folder)
    } catch (error) {
      if (isAbsent(error)) return []
      throw error
    }
  }

  /** False when a journal was replaced before it could be opened: the folder has to be looked at again. */
  private async readListed(names: readonly string[]): Promise<boolean> {
    const journals = new Set(names.filter((name) => name.endsWith(PURGES_SUFFIX) && !name.startsWith(this.host.owner.name)))
    let complete = true
    for (const name of journals) if (!this.tails.has(name) && !(await this.follow(name))) complete = false
    for (const [name, tail] of this.tails) {
      await this.readOn(tail)
      if (journals.has(name)) continue
      tail.file.close()
      this.tails.delete(name)
    }
    return complete
  }

  private async follow(name: string): Promise<boolean> {
    try {
      this.tails.set(name, { file: await this.host.io.open(join(this.host.folder, name), 'r', 'write'), position: 0, broken: false })
      return true
    } catch (error) {
      if (isAbsent(error)) return false
      throw error
    }
  }

  /** Applies the whole lines behind `tail.position`. */
  private async readOn(tail: Tail): Promise<void> {
    let pieceBytes = PIECE_BYTES
    while ((await tail.file.stat()).size > tail.position) {
      const piece = Buffer.allocUnsafeSlow(pieceBytes)
      const bytes = piece.subarray(0, await tail.file.read(piece, tail.position))
      const end = bytes.lastIndexOf(LINE_FEED) + 1
      if (end > 0) await this.applyLines(tail, bytes.subarray(0, end))
      else if (bytes.byteLength < pieceBytes) return
      // No line of ours is so long: what this is has to be passed over.
      else if (pieceBytes < MAX_LINE_BYTES) pieceBytes *= 2
      else {
        tail.position += bytes.byteLength
        tail.broken = true
      }
    }
  }

  private async applyLines(tail: Tail, bytes: Buffer): Promise<void> {
    for (let at = 0; at < bytes.byteLength; ) {
      const end = bytes.indexOf(LINE_FEED, at)
      const record = decodeLine(bytes.subarray(at, end))
      at = end + 1
      if (record === 'broken') tail.broken = true
      else {
        // More was written after it, so it is not the end of a write that was cut off: something that counts is lost, and only its latest time is known.
        if (tail.broken || record === 'unknown') await this.replaceLost(tail)
        tail.broken = false
        if (record !== 'unknown') this.host.apply(record)
      }
    }
    tail.position += bytes.byteLength
  }

  private async replaceLost({ file }: Tail): Promise<void> {
    this.host.apply({ scope: 'all', value: '', at: Math.ceil((await file.stat()).mtimeMs), soft: false })
    this.host.onBroken()
  }
}
