import type { GetOptions } from '@proxy/cache'
import { type Body, WholeBody } from '@proxy/pipeline'
import { BlockCursor, verifyBlocks } from './blocks-file.ts'
import { type Attempt, withDeadline } from './deadline.ts'
import { DiskEntry } from './entry.ts'
import { DiskError, isAbsent, systemCode, toDiskError } from './errors.ts'
import { FileBody } from './file-body.ts'
import type { Health } from './health.ts'
import type { DiskFile, DiskIo } from './io.ts'
import { currentMeta, decodeHead, type EntryName, type FileHead, type Places } from './layout.ts'
import { OpenFiles } from './open-files.ts'
import type { ResolvedOptions } from './options.ts'
import { parseMeta } from './stored-meta.ts'
import { Turns } from './turns.ts'

/** A file that was opened and whose head holds. */
export interface OpenedFile {
  readonly file: DiskFile
  readonly head: FileHead
  /** The file's first bytes: all up to the body, at least. */
  readonly bytes: Buffer
}

/** `condemned`: found so before, and still there. */
export type UselessReason = 'broken' | 'outlived' | 'condemned'

/** What the reader needs of its store. */
export interface ReadHost {
  readonly io: DiskIo
  readonly options: ResolvedOptions
  readonly places: Places
  readonly health: Health
  /** Bytes of a key's file as far as known, rounded up; 0 where it is not. */
  sizeHint(id: string): number
  /** A version that must not be served. */
  isCondemned(version: string): boolean
  /** Removes a file that is of no use, unless another one has its name by then. */
  foundUseless(id: string, version: string, file: DiskFile, reason: UselessReason): void
}

/** Files up to this size are read whole at once. */
const WHOLE_FILE_BYTES = 128 * 1024
/** What is read first of others, and where the size is not known. */
export const FIRST_READ_BYTES = 16 * 1024

/** Reads and verifies files, each step within a deadline. */
export class FileReader {
  private readonly host: ReadHost
  private readonly turns: Turns
  /** Reads of bodies that were not done in time, since the last one that was. */
  private timeouts = 0
  private readonly held: OpenFiles

  constructor(host: ReadHost) {
    this.host = host
    this.held = new OpenFiles(host.options.maxOpenFiles)
    this.turns = new Turns(host.options.maxOperations)
  }

  /** Files that entries and bodies hold. */
  get openFiles(): number {
    return this.held.count
  }

  /** The entry under `name`; undefined for none of ours. Rejects with `DiskError`. */
  read(name: EntryName, want: GetOptions | undefined): Promise<DiskEntry | undefined> {
    const { readTimeoutMs } = this.host.options
    const all = want?.body === undefined || want.body === 'all'
    return this.noting(
      withDeadline(
        readTimeoutMs,
        want?.signal,
        (attempt) => this.find(name, all, attempt),
        (late) => late?.discard()
      )
    )
  }

  /** Opens the file under `name` and reads its head; undefined where none is there or it is not that key's. The caller closes it. */
  async openFile(name: EntryName, flags: 'r' | 'r+', firstBytes: number): Promise<OpenedFile | undefined> {
    const { io, places } = this.host
    let file: DiskFile
    try {
      file = await io.open(places.file(name.id), flags, flags === 'r' ? 'read' : 'write')
    } catch (error) {
      if (isAbsent(error)) return undefined
      throw error
    }
    let opened: OpenedFile | undefined
    try {
      opened = await this.readHead(file, name, firstBytes)
      return opened
    } catch (error) {
      if (systemCode(error) === 'EISDIR') return undefined
      throw error
    } finally {
      if (opened === undefined) file.close()
    }
  }

  private async readHead(file: DiskFile, name: EntryName, firstBytes: number): Promise<OpenedFile | undefined> {
    let bytes = Buffer.allocUnsafeSlow(firstBytes)
    bytes = bytes.subarray(0, await file.read(bytes, 0))
    const head = decodeHead(bytes, name.digest)
    if (head === 'unknown') return undefined
    if (head === 'broken' || head === 'foreign') return this.useless(name, '', file, 'broken')
    if (bytes.byteLength < head.bodyStart) {
      bytes = Buffer.allocUnsafeSlow(head.bodyStart)
      if ((await file.read(bytes, 0)) < head.bodyStart) return this.useless(name, head.version, file, 'broken')
    }
    return { file, head, bytes }
  }

  private async find(name: EntryName, all: boolean, attempt: Attempt): Promise<DiskEntry | undefined> {
    const { host, held } = this
    const hint = host.sizeHint(name.id)
    // What is read at once is closed at once, and needs no place among the files that are held.
    if (all && hint > 0 && hint <= WHOLE_FILE_BYTES) return this.look(name, hint, attempt)
    held.enter(name.id)
    try {
      return await this.look(name, FIRST_READ_BYTES, attempt)
    } finally {
      held.leave(name.id)
    }
  }

  private async look(name: EntryName, firstBytes: number, attempt: Attempt): Promise<DiskEntry | undefined> {
    const { host } = this
    const { options } = host
    const opened = await this.openFile(name, 'r', firstBytes)
    if (opened === undefined) return undefined
    const { file, head, bytes } = opened
    let isHeld = false
    try {
      if (attempt.over) throw new DiskError('aborted')
      if (host.isCondemned(head.version)) return this.useless(name, head.version, file, 'condemned')
      const json = currentMeta(bytes, head)
      const meta = json && parseMeta(json, head.length)
      if (meta === undefined) return this.useless(name, head.version, file, 'broken')
      if (meta.v !== 1) return undefined
      if (meta.keepUntil <= options.clock.wallMs()) return this.useless(name, head.version, file, 'outlived')
      let body = await this.bodyOf(opened)
      if (body === undefined) return this.useless(name, head.version, file, 'broken')
      if (!Buffer.isBuffer(body)) {
        body = this.hold(name.id, head.version, file)
        isHeld = true
      }
      const openPart = (part: DiskFile, of: FileHead, start: number, end: number): Promise<Body> => this.openPart(name, part, of, start, end)
      return new DiskEntry(head, meta, body, openPart, options.holdTimeoutMs)
    } finally {
      if (!isHeld) file.close()
    }
  }

  /** The body's bytes where they have come with the head, else the file, which is then known to have its full length; undefined for a broken one. */
  private async bodyOf({ file, head, bytes }: OpenedFile): Promise<Buffer | DiskFile | undefined> {
    if (bytes.byteLength < head.fileBytes) return (await file.stat()).size === head.fileBytes ? file : undefined
    try {
      const blocks = verifyBlocks(bytes.subarray(head.bodyStart, head.fileBytes), head, 0)
      const [only] = blocks
      if (blocks.length > 1) return Buffer.concat(blocks)
      if (only === undefined) return Buffer.alloc(0)
      return only.byteLength * 2 < bytes.buffer.byteLength ? Buffer.from(only) : only
    } catch {
      // Only DISK_BROKEN is thrown there.
      return undefined
    }
  }

  private async openPart(name: EntryName, file: DiskFile, head: FileHead, start: number, end: number): Promise<Body> {
    const cursor = new BlockCursor(file, head, start, end)
    const read = (): Promise<Buffer[]> => this.readOn(name, file, head, cursor)
    const host = { holdTimeoutMs: this.host.options.holdTimeoutMs, read, release: () => file.close() }
    try {
      const first = await read()
      if (cursor.remaining > 0) return new FileBody(cursor, first, host)
      file.close()
      return new WholeBody(first.length === 1 ? (first[0] as Buffer) : Buffer.concat(first))
    } catch (error) {
      file.close()
      throw error
    }
  }

  private async readOn(name: EntryName, file: DiskFile, head: FileHead, cursor: BlockCursor): Promise<Buffer[]> {
    try {
      return await this.readBlocks(cursor)
    } catch (error) {
      if (toDiskError(error).kind === 'broken') this.useless(name, head.version, file, 'broken')
      throw error
    }
  }

  /**
   * The next blocks, within the deadline. Rejects with `DiskError`. Where many bodies are read at once, they take turns: the deadline is the disk's, not that of
   * the others before them, and where they are many each read brings one block only, as all of them hold what they have read.
   */
  async readBlocks(cursor: BlockCursor): Promise<Buffer[]> {
    const { turns } = this
    const { failureThreshold, readTimeoutMs } = this.host.options
    const turn = turns.take()
    if (turn !== undefined) await turn
    try {
      // A disk that hangs would keep those who wait for as long as all before them together.
      if (turn !== undefined && this.timeouts >= failureThreshold) throw new DiskError('timeout')
      const maxBlocks = turns.isCrowded ? 1 : undefined
      const blocks = await this.noting(
        withDeadline(
          readTimeoutMs,
          undefined,
          () => cursor.read(maxBlocks),
          () => {}
        )
      )
      this.timeouts = 0
      return blocks
    } catch (error) {
      if (toDiskError(error).kind === 'timeout') this.timeouts++
      throw error
    } finally {
      turns.done()
    }
  }

  private hold(id: string, version: string, file: DiskFile): DiskFile {
    // A file that has grown since its size was noted has come without a place.
    this.held.enter(id)
    try {
      return this.held.hold(id, version, file)
    } finally {
      this.held.leave(id)
    }
  }

  private useless(name: EntryName, version: string, file: DiskFile, reason: UselessReason): undefined {
    this.host.foundUseless(name.id, version, file, reason)
    return undefined
  }

  private async noting<T>(work: Promise<T>): Promise<T> {
    const { health } = this.host
    try {
      const value = await work
      health.success()
      return value
    } catch (thrown) {
      const error = toDiskError(thrown)
      health.failed(error)
      throw error
    }
  }
}
