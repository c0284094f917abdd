import type { CacheEntry, StoredMeta } from '@proxy/cache'
import { type Body, type ByteRange, WholeBody } from '@proxy/pipeline'
import { DiskError } from './errors.ts'
import type { DiskFile } from './io.ts'
import type { FileHead } from './layout.ts'

/** Reads a part of an entry's body from its file, and closes that once the body is done with. `end` exclusive. */
export type OpenPart = (file: DiskFile, head: FileHead, start: number, end: number) => Promise<Body>

/** What `get` found: the metadata, and either the whole body, verified, or the open file. The file stays that of this version whatever becomes of its name. */
export class DiskEntry implements CacheEntry {
  readonly version: string
  readonly meta: StoredMeta
  private readonly head: FileHead
  private readonly bytes: Buffer | undefined
  private file: DiskFile | undefined
  private readonly openPart: OpenPart
  private readonly timer: NodeJS.Timeout | undefined

  constructor(head: FileHead, meta: StoredMeta, body: Buffer | DiskFile, openPart: OpenPart, holdTimeoutMs: number) {
    this.version = head.version
    this.meta = meta
    this.head = head
    this.openPart = openPart
    if (Buffer.isBuffer(body)) this.bytes = body
    else {
      this.file = body
      this.timer = setTimeout(() => this.discard(), holdTimeoutMs).unref()
    }
  }

  /** Bytes of the whole file. */
  get fileBytes(): number {
    return this.head.fileBytes
  }

  open(range?: ByteRange): Promise<Body> {
    const { length } = this.head
    if (range !== undefined && range.start >= length) {
      this.discard()
      return Promise.reject(new RangeError(`the body has ${length} bytes, byte ${range.start} was asked for`))
    }
    const start = range?.start ?? 0
    const end = Math.min(range === undefined ? length : range.end + 1, length)
    if (this.bytes !== undefined) return Promise.resolve(new WholeBody(this.bytes.subarray(start, end)))
    const { file } = this
    if (file === undefined) return Promise.reject(new DiskError('gone'))
    clearTimeout(this.timer)
    this.file = undefined
    return this.openPart(file, this.head, start, end)
  }

  discard(): void {
    clearTimeout(this.timer)
    this.file?.close()
    this.file = undefined
  }
}
