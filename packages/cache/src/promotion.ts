import { type Body, type BodySink, type BodySource, type ByteRange, type Flow, type HeaderMap, type ProxyError, toSource, WholeBody } from '@proxy/pipeline'
import { timerMs } from './deadline.ts'
import type { CacheEntry, StoredMeta } from './store.ts'
import type { TierWriter } from './tier-writer.ts'

/** Starts copying an entry to nearer stores; undefined when none of them takes it. */
export type StartCopy = (entry: CacheEntry) => Copy | undefined

/** A copy of an entry on its way to nearer stores. */
export interface Copy {
  readonly writers: readonly TierWriter[]
  /** How long its reader may pause, in all: a copy holds what was read so far, and keeps others from making one. Milliseconds. */
  readonly maxPausedMs: number
  /** Gives it up. */
  abort(): void
  /** Makes it visible, if the entry that it is a copy of is still the one to be found. In the background; never rejects. */
  settle(): void
}

/** An entry of a far store, which is copied to the nearer ones while it is read. Only a body that is read whole is copied: nothing is read for the sake of it. */
export class PromotedEntry implements CacheEntry {
  readonly version: string
  readonly meta: StoredMeta
  private readonly entry: CacheEntry
  private readonly startCopy: StartCopy

  constructor(entry: CacheEntry, startCopy: StartCopy) {
    this.version = entry.version
    this.meta = entry.meta
    this.entry = entry
    this.startCopy = startCopy
  }

  async open(range?: ByteRange): Promise<Body> {
    const body = await this.entry.open(range)
    const copy = range === undefined ? this.startCopy(this.entry) : undefined
    if (copy === undefined) return body
    if (body === null || body instanceof Uint8Array || body instanceof WholeBody) {
      const bytes = body instanceof WholeBody ? body.toBytes() : body
      if (bytes !== null && bytes.byteLength > 0) for (const writer of copy.writers) writer.write(bytes)
      copy.settle()
      return body
    }
    return new CopiedBody(toSource(body), copy)
  }

  discard(): void {
    this.entry.discard()
  }
}

/** Hands a body on to its reader and to writers. Writers never slow the reader: one that does not keep up is given up. Nor does a copy wait for a reader who takes his time. */
class CopiedBody implements BodySource, BodySink, Flow {
  readonly length: number | undefined
  private readonly source: BodySource
  private readonly copy: Copy
  private readonly behind = new Set<TierWriter>()
  private sink: BodySink | undefined
  private flow: Flow | undefined
  /** Settled, or given up. */
  private isOver = false
  private pausedMs = 0
  private pausedAt: number | undefined
  private patience: NodeJS.Timeout | undefined

  constructor(source: BodySource, copy: Copy) {
    this.length = source.length
    this.source = source
    this.copy = copy
  }

  start(sink: BodySink): Flow {
    this.sink = sink
    this.flow = this.source.start(this)
    return this
  }

  discard(): void {
    this.giveUp()
    this.source.discard()
  }

  data(chunk: Uint8Array): boolean {
    if (!this.isOver) this.copyChunk(chunk)
    const wantsMore = (this.sink as BodySink).data(chunk)
    if (!wantsMore && !this.isOver) this.pause()
    return wantsMore
  }

  end(trailers?: HeaderMap): void {
    if (!this.isOver) {
      this.finish()
      this.copy.settle()
    }
    ;(this.sink as BodySink).end(trailers)
  }

  error(error: ProxyError): void {
    this.giveUp()
    ;(this.sink as BodySink).error(error)
  }

  resume(): void {
    this.goOn()
    this.flow?.resume()
  }

  abort(): void {
    this.giveUp()
    this.flow?.abort()
  }

  private copyChunk(chunk: Uint8Array): void {
    for (const writer of this.copy.writers) {
      if (this.behind.has(writer)) {
        writer.giveUp()
        continue
      }
      if (!writer.write(chunk)) {
        this.behind.add(writer)
        void writer.drained().then(() => this.behind.delete(writer))
      }
    }
  }

  private pause(): void {
    if (this.pausedAt !== undefined) return
    this.pausedAt = performance.now()
    this.patience = setTimeout(() => this.giveUp(), timerMs(Math.max(0, this.copy.maxPausedMs - this.pausedMs)))
  }

  private goOn(): void {
    if (this.pausedAt === undefined) return
    clearTimeout(this.patience)
    this.pausedMs += performance.now() - this.pausedAt
    this.pausedAt = undefined
  }

  private giveUp(): void {
    if (this.isOver) return
    this.finish()
    this.copy.abort()
  }

  private finish(): void {
    this.isOver = true
    clearTimeout(this.patience)
  }
}
