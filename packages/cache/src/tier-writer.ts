import type { Body } from '@proxy/pipeline'
import type { CacheWriter } from './store.ts'

/** What a write needs of its tier. */
export interface TierWriteHost {
  /** Takes bytes out of what all writes of the tier may hold; false when there is no such room. */
  reserve(bytes: number): boolean
  release(bytes: number): void
  /** What a commit comes to within the tier's time. Never rejects. */
  committed(key: string, commit: Promise<boolean>): Promise<boolean>
  /** What was begun when `mark` was noted is visible. */
  stored(key: string, mark: number, bytes: number): void
  /** The write did not come to be stored, and not because its caller wanted it so. */
  gaveUp(): void
  /** It held up others for too long. */
  stalled(): void
  /** The store did what it must not: it threw. */
  writeFailed(error: unknown): void
}

/** The write to one tier, counted against what the tier's writes may hold all together. */
export class TierWriter implements CacheWriter {
  private readonly host: TierWriteHost
  private readonly key: string
  private readonly mark: number
  private readonly writer: CacheWriter
  private state: 'open' | 'committing' | 'failed' = 'open'
  private bytes = 0
  /** The part of `bytes` that the store may still hold in memory. */
  private held = 0
  private isCounted = false

  /** `mark`: of the tier's missed removals, before `writer` was made. */
  constructor(host: TierWriteHost, key: string, mark: number, writer: CacheWriter) {
    this.host = host
    this.key = key
    this.mark = mark
    this.writer = writer
    if (this.hasFailed) this.giveUp()
  }

  get failed(): boolean {
    return this.state === 'failed' || this.hasFailed
  }

  /** Of the store's own writer. One that throws, against the contract, is of no use. */
  private get hasFailed(): boolean {
    try {
      return this.writer.failed === true
    } catch {
      return true
    }
  }

  get canFollow(): boolean {
    return this.writer.readFrom !== undefined && !this.failed
  }

  /** Undefined where it cannot be followed after all. */
  follow(offset: number): Body | undefined {
    try {
      return this.writer.readFrom?.(offset)
    } catch (error) {
      this.host.writeFailed(error)
      this.giveUp()
      return undefined
    }
  }

  write(chunk: Uint8Array): boolean {
    if (this.state !== 'open') return true
    if (this.hasFailed || !this.host.reserve(chunk.byteLength)) {
      this.giveUp()
      return true
    }
    this.held += chunk.byteLength
    this.bytes += chunk.byteLength
    try {
      return this.writer.write(chunk)
    } catch (error) {
      this.host.writeFailed(error)
      this.giveUp()
      return true
    }
  }

  async drained(): Promise<void> {
    const { held } = this
    try {
      await this.writer.drained()
    } catch (error) {
      this.host.writeFailed(error)
      this.giveUp()
    }
    // The store wants more, so it has found a place for this.
    this.release(held)
  }

  async commit(): Promise<boolean> {
    if (this.state !== 'open') return false
    this.state = 'committing'
    const stored = await this.host.committed(this.key, this.commitInner())
    if (stored) this.host.stored(this.key, this.mark, this.bytes)
    else {
      this.state = 'failed'
      this.count()
    }
    return stored
  }

  /** Until the store has settled it, the bytes count as held: also when nobody waits any more. */
  private async commitInner(): Promise<boolean> {
    try {
      return await this.writer.commit()
    } finally {
      this.release(this.held)
    }
  }

  abort(): void {
    if (this.state !== 'open') return
    this.state = 'failed'
    this.release(this.held)
    try {
      this.writer.abort()
    } catch (error) {
      this.host.writeFailed(error)
    }
  }

  /** Ends a write that does not keep up. */
  stall(): void {
    if (this.state !== 'open') return
    this.host.stalled()
    this.giveUp()
  }

  /** Ends it for the tier's sake. */
  giveUp(): void {
    this.count()
    this.abort()
  }

  private count(): void {
    if (this.isCounted) return
    this.isCounted = true
    this.host.gaveUp()
  }

  private release(bytes: number): void {
    const released = Math.min(bytes, this.held)
    this.held -= released
    this.host.release(released)
  }
}

/** For a write that is not tried. */
export const refusedWriter: CacheWriter = {
  write: () => true,
  drained: () => Promise.resolve(),
  commit: () => Promise.resolve(false),
  abort() {},
  failed: true
}
