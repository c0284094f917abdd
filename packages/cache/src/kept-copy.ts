import { type BodySource, toSource } from '@proxy/pipeline'
import { wholeOf } from './checked-body.ts'
import { timerMs } from './deadline.ts'
import { readerLost, storeStalled } from './errors.ts'
import type { CacheMeta, CacheStore, CacheWriter } from './store.ts'

export interface KeptCopyOptions {
  readonly store: CacheStore
  readonly key: string
  /** What is being stored under `key`. */
  readonly meta: CacheMeta
  /** Receives every byte. */
  readonly writer: CacheWriter
  /** Larger bodies are passed on but not kept. */
  readonly maxObjectBytes: number
  /** How long the writer, or slow readers once there is none, may keep readers waiting before they are given up. */
  readonly storeStallMs: number
  readonly onStoreError: (error: unknown) => void
}

/** Who is told of a copy's fate. */
export interface KeptCopyOwner {
  /** The store takes more again. */
  drained(): void
  /** The write has been given up: nothing more can be read from here. */
  lost(): void
}

/** The copy of a body that is being written to the store while it arrives. A store that fails or stalls costs the copy, never the body. */
export class KeptCopy {
  private readonly options: KeptCopyOptions
  private readonly owner: KeptCopyOwner
  private writer: CacheWriter | undefined
  private length = 0
  /** The entry is in the store: what is left of the write may know nothing of it any more. */
  private isStored = false
  /** It was given up because there was more of it than is kept, of which nothing had been said. */
  outgrew = false
  /** Runs while the writer asks for a pause. */
  private stall: NodeJS.Timeout | undefined
  private settle!: (stored: boolean) => void
  /** Resolves when the commit is settled, or with false when there will be none. */
  readonly settled: Promise<boolean>

  constructor(options: KeptCopyOptions, owner: KeptCopyOwner) {
    this.options = options
    this.owner = owner
    this.writer = options.writer
    this.settled = new Promise((resolve) => {
      this.settle = resolve
    })
  }

  /** Nothing is kept, or as far as is known will be. */
  get isLost(): boolean {
    return this.writer === undefined || this.hasFailed(this.writer)
  }

  /** A writer that throws, against the contract, is of no use. */
  private hasFailed(writer: CacheWriter): boolean {
    try {
      return writer.failed === true
    } catch {
      return true
    }
  }

  /** The store asks for a pause. */
  get isWaiting(): boolean {
    return this.stall !== undefined
  }

  /** May call `owner.lost`. */
  write(chunk: Uint8Array): void {
    const { writer } = this
    if (writer === undefined) return
    const { maxObjectBytes, onStoreError } = this.options
    this.length += chunk.byteLength
    let ready = true
    try {
      if (this.length <= maxObjectBytes) ready = writer.write(chunk)
    } catch (error) {
      // Against the contract; the readers get their bytes all the same.
      onStoreError(error)
      this.giveUp()
      return
    }
    if (this.length > maxObjectBytes || this.hasFailed(writer)) {
      this.outgrew = this.options.meta.length === undefined
      this.giveUp()
    } else if (!ready) this.waitFor(writer)
  }

  /** Makes the entry visible, when there is one. Outcome: `settled`. */
  commit(): void {
    this.stopWaiting()
    if (this.writer === undefined) this.settle(false)
    else void this.commitTo(this.writer)
  }

  /** Never rejects. By the store's contract a commit does not either; one that does counts as not stored. */
  private async commitTo(writer: CacheWriter): Promise<void> {
    let stored = false
    try {
      stored = await writer.commit()
    } catch (error) {
      this.options.onStoreError(error)
    }
    this.isStored = stored
    this.settle(stored)
  }

  /** Forgets what was written. */
  abort(): void {
    const { writer } = this
    this.stopWaiting()
    this.writer = undefined
    this.settle(false)
    try {
      writer?.abort()
    } catch (error) {
      // Against the contract; those who read or wait are not to suffer for it.
      this.options.onStoreError(error)
    }
  }

  get canFollow(): boolean {
    return !this.isLost && this.writer?.readFrom !== undefined
  }

  /** The bytes from `offset` on as the write under way gives them, where it can. */
  following(offset: number): BodySource | undefined {
    return this.canFollow && !this.isStored ? this.written(offset) : undefined
  }

  /** Undefined from a writer that throws, against the contract. */
  private written(offset: number): BodySource | undefined {
    try {
      return toSource(this.writer?.readFrom?.(offset) ?? null)
    } catch (error) {
      this.options.onStoreError(error)
      return undefined
    }
  }

  /** The bytes from `offset` on, once they are stored. Rejects when they are not. */
  async stored(offset: number): Promise<BodySource> {
    const { key, store, onStoreError } = this.options
    if (!this.isLost && (await this.settled)) {
      const range = { start: offset, end: this.length - 1 }
      try {
        const entry = await store.get(key, { body: range })
        if (entry !== undefined && this.isThis(entry.meta)) return toSource(wholeOf(await entry.open(range), entry, range, store, key))
        entry?.discard()
      } catch (error) {
        onStoreError(error)
      }
      // Replaced or removed meanwhile: a store in memory still has it.
      const written = this.canFollow ? this.written(offset) : undefined
      if (written !== undefined) return written
    }
    throw readerLost()
  }

  /** Whether an entry is what was written here, and not what a later write has put in its place. */
  private isThis(found: CacheMeta): boolean {
    const { id } = this.options.meta
    return id !== undefined && found.id === id && found.length === this.length
  }

  private giveUp(): void {
    this.abort()
    this.owner.lost()
  }

  private waitFor(writer: CacheWriter): void {
    if (this.stall !== undefined) return
    const { storeStallMs, onStoreError } = this.options
    const stall = setTimeout(() => {
      onStoreError(storeStalled(storeStallMs))
      this.giveUp()
    }, timerMs(storeStallMs))
    this.stall = stall
    const goOn = (): void => {
      if (this.stall !== stall) return
      this.stopWaiting()
      this.owner.drained()
    }
    try {
      void writer.drained().then(goOn, goOn)
    } catch (error) {
      onStoreError(error)
      this.giveUp()
    }
  }

  private stopWaiting(): void {
    clearTimeout(this.stall)
    this.stall = undefined
  }
}
