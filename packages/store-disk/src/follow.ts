import { BLOCK_BYTES } from '@proxy/cache/blocks'
import type { Body } from '@proxy/pipeline'
import { BlockCursor } from './blocks-file.ts'
import { DiskError } from './errors.ts'
import { type BodyCursor, FileBody } from './file-body.ts'
import type { DiskFile } from './io.ts'

/** A write as its followers see it. */
export interface FollowedWrite {
  readonly version: string
  readonly bodyStart: number
  /** Bytes of body that lie in the file: whole blocks until it is complete. */
  readonly available: number
  /** All that there will be lies in the file. */
  readonly isComplete: boolean
  readonly isFailed: boolean
  /** Bytes from `offset` on that were taken and do not lie in the file yet: some of them, none where there are none. */
  early(offset: number): Uint8Array[]
  /** Undefined until something was written. */
  readonly file: DiskFile | undefined
  /** Resolves when any of this has changed. */
  progress(): Promise<void>
}

export interface FollowOptions {
  readonly holdTimeoutMs: number
  /** Runs one read within the deadline. */
  read(cursor: BlockCursor): Promise<Buffer[]>
}

/** What a write has brought so far, from `offset` on, and what it still brings: read from its file, verified like any other, or from the memory where it waits to be written. Fails when the write does. */
export function followWrite(write: FollowedWrite, offset: number, options: FollowOptions): Body {
  const cursor = new GrowingCursor(write, offset, options)
  const body = new FileBody(cursor, [], { holdTimeoutMs: options.holdTimeoutMs, read: () => cursor.read(), release: () => cursor.release() })
  // Its length is not known, so there is none to be told.
  return { start: (sink) => body.start(sink), discard: () => body.discard() }
}

class GrowingCursor implements BodyCursor {
  private readonly write: FollowedWrite
  private readonly options: FollowOptions
  private next: number
  /** Kept open for this reader, also after the write has ended. */
  private held: DiskFile | undefined
  private over = false

  constructor(write: FollowedWrite, offset: number, options: FollowOptions) {
    this.write = write
    this.next = offset
    this.options = options
    void this.holdOnce()
  }

  get remaining(): number {
    const { isComplete, available } = this.write
    return isComplete ? Math.max(0, available - this.next) : Number.POSITIVE_INFINITY
  }

  async read(): Promise<Uint8Array[]> {
    const { write } = this
    while (this.next >= write.available && !write.isComplete) {
      if (write.isFailed) throw new DiskError('aborted')
      const early = write.early(this.next)
      if (early.length > 0) {
        for (const { byteLength } of early) this.next += byteLength
        return early
      }
      await write.progress()
      if (this.over) throw new DiskError('gone')
    }
    this.hold()
    if (this.remaining === 0) return []
    const { version, bodyStart, available } = write
    const file = this.held
    // A write that fails may have let go of its file before this reader held it.
    if (file === undefined) throw new DiskError('aborted')
    const head = { version, bodyStart, length: available }
    const cursor = new BlockCursor(file, head, this.next, Math.min(available, (Math.floor(this.next / BLOCK_BYTES) + 4) * BLOCK_BYTES))
    const chunks = await this.options.read(cursor)
    for (const chunk of chunks) this.next += chunk.byteLength
    return chunks
  }

  release(): void {
    this.over = true
    this.held?.close()
    this.held = undefined
  }

  /** Holds the file from the moment it is there: a reader that pauses asks for nothing until long after the write has let go of it. */
  private async holdOnce(): Promise<void> {
    this.hold()
    while (this.held === undefined && !this.over && !this.write.isFailed && !this.write.isComplete) {
      await this.write.progress()
      this.hold()
    }
  }

  private hold(): void {
    const { file } = this.write
    if (this.over || this.held !== undefined || file === undefined || !file.retain()) return
    this.held = file
  }
}
