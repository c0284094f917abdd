import { join } from 'node:path'
import type { PurgeRecord } from '@proxy/cache'
import { isAbsent } from './errors.ts'
import type { DiskFile, DiskIo } from './io.ts'
import type { Owner } from './owner.ts'
import { encodeLine } from './purge-lines.ts'

export const PURGES_SUFFIX = '.purges'
export const TEMPORARY_SUFFIX = '.tmp'

export interface PurgeJournalHost {
  readonly io: DiskIo
  readonly folder: string
  readonly owner: Owner
  /** Everything that is known, also what waits to be written. */
  readonly records: () => Iterable<PurgeRecord>
  /** Lines in the file, and lines that wait: beyond, the file is replaced by one that holds what is known. */
  readonly maxLines: number
}

/** The purges that one log knows of, in a file that it alone writes and others read. Appended to; replaced as a whole when that is shorter. Called one at a time. */
export class PurgeJournal {
  /** The file lacks something: the next write replaces it. */
  isStale = false
  private readonly host: PurgeJournalHost
  private waiting: string[] = []
  private file: DiskFile | undefined
  private fileName: string | undefined
  private position = 0
  private lines = 0
  private number = 0

  constructor(host: PurgeJournalHost) {
    this.host = host
  }

  /** Of the file that holds; undefined before the first write. */
  get name(): string | undefined {
    return this.fileName
  }

  /** A name in the folder that is this log's and was not used before. */
  freshName(): string {
    return `${this.host.owner.name}.${++this.number}`
  }

  /** Has a line written by the next `write`, and by each one until one succeeds. */
  add(line: string): void {
    this.waiting.push(line)
    if (this.waiting.length <= this.host.maxLines) return
    this.waiting = []
    this.isStale = true
  }

  /** Writes what waits, to the device. Rejects with what the system says; it then goes on waiting. */
  async write(): Promise<void> {
    const { waiting } = this
    const count = waiting.length
    if (count === 0 && !this.isStale) return
    if (this.file === undefined || this.isStale || this.lines + count > this.host.maxLines) await this.replace()
    else await this.append(this.file, waiting)
    // Where too many waited it is another list by now, of what came since.
    waiting.splice(0, count)
  }

  /** Resolves when the file is closed. */
  close(): Promise<void> {
    const { file } = this
    this.file = undefined
    if (file === undefined) return Promise.resolve()
    return new Promise((resolve) => {
      file.onClosed = resolve
      file.close()
    })
  }

  private async append(file: DiskFile, lines: readonly string[]): Promise<void> {
    const count = lines.length
    const bytes = Buffer.from(lines.join(''))
    // At a place of its own: what a failed try left there is written over.
    await file.write(bytes, this.position)
    this.position += bytes.byteLength
    this.lines += count
    try {
      await file.sync()
    } catch (error) {
      // The system may have dropped what it could not write: only another file tells.
      this.isStale = true
      throw error
    }
    // Somebody took this log for gone, or removed the folder: what is in the file now may not be read by anybody.
    if (!(await this.isInPlace(file))) await this.replace()
  }

  private async isInPlace(file: DiskFile): Promise<boolean> {
    try {
      const [mine, there] = await Promise.all([file.stat(), this.host.io.stat(join(this.host.folder, this.fileName as string), 'read')])
      return mine.ino === there.ino && mine.dev === there.dev
    } catch (error) {
      if (isAbsent(error)) return false
      throw error
    }
  }

  /** Writes all that is known into a new file, which takes the place of the one before once it is on the device. */
  private async replace(): Promise<void> {
    const { io, folder, records } = this.host
    const all = Array.from(records(), encodeLine)
    this.isStale = false
    const base = this.freshName()
    const temporary = join(folder, base + TEMPORARY_SUFFIX)
    const name = base + PURGES_SUFFIX
    let file: DiskFile | undefined
    try {
      file = await io.inFolder(folder, () => io.open(temporary, 'w+', 'read'))
      const bytes = Buffer.from(all.join(''))
      if (bytes.byteLength > 0) await file.write(bytes, 0)
      await file.sync()
      await io.rename(temporary, join(folder, name))
      await io.syncFolder(folder)
      await io.syncFolder(join(folder, '..'))
      const { file: before, fileName } = this
      this.file = file
      this.fileName = name
      this.position = bytes.byteLength
      this.lines = all.length
      before?.close()
      // Where it cannot be removed now, the next exchange does it.
      if (fileName !== undefined) await io.unlink(join(folder, fileName)).catch(() => {})
    } catch (error) {
      this.isStale = true
      file?.close()
      // It takes room on what may be a full disk; where it cannot be removed now, the next exchange does it.
      await io.unlink(temporary).catch(() => {})
      throw error
    }
  }
}
