import type { Body } from '@proxy/pipeline'
import type { Copies } from './copies.ts'
import { settledWithin } from './deadline.ts'
import { writeAborted } from './errors.ts'
import type { CacheWriter } from './store.ts'
import type { TierWriter } from './tier-writer.ts'

/** A tier, as far as a write to several of them needs it. */
export interface ClearedTier {
  /** Removes what it holds under the key. `isSuperseded`: it lies behind a tier that has the new entry. Never rejects. */
  clear(key: string, isSuperseded: boolean): Promise<void>
}

export interface TieredWriterOptions {
  readonly key: string
  /** Nearest first. */
  readonly tiers: readonly ClearedTier[]
  /** One for each tier; undefined where it does not admit the entry. */
  readonly writers: readonly (TierWriter | undefined)[]
  readonly copies: Copies
  /** How long a tier may hold up the others before it is left out of this write. */
  readonly stallMs: number
}

/** Writes to several tiers at once. A tier that fails or does not keep up is left out, and the others go on. */
export class TieredWriter implements CacheWriter {
  private readonly options: TieredWriterOptions
  private readonly writers: readonly TierWriter[]
  private readonly follow = (offset: number): Body => {
    for (const writer of this.writers) {
      const body = writer.canFollow ? writer.follow(offset) : undefined
      if (body !== undefined) return body
    }
    throw writeAborted()
  }

  constructor(options: TieredWriterOptions) {
    this.options = options
    this.writers = options.writers.filter((writer) => writer !== undefined)
  }

  get failed(): boolean {
    return this.writers.every((writer) => writer.failed)
  }

  get readFrom(): ((offset: number) => Body) | undefined {
    return this.writers.some(({ canFollow }) => canFollow) ? this.follow : undefined
  }

  write(chunk: Uint8Array): boolean {
    let ready = true
    for (const writer of this.writers) if (!writer.write(chunk)) ready = false
    return ready
  }

  async drained(): Promise<void> {
    const slow = new Set(this.writers)
    const all = Promise.all(
      this.writers.map(async (writer) => {
        await writer.drained()
        slow.delete(writer)
      })
    )
    await settledWithin(all, this.options.stallMs)
    for (const writer of slow) writer.stall()
  }

  /** True when one tier has it. The key is then gone from the tiers that have not: what was put last is what is found. */
  commit(): Promise<boolean> {
    const { copies, key } = this.options
    return copies.change(key, () => this.commitAll())
  }

  private async commitAll(): Promise<boolean> {
    const { key, tiers, writers } = this.options
    const results = await Promise.all(writers.map((writer) => (writer === undefined ? notAdmitted : writer.commit())))
    const furthest = results.lastIndexOf(true)
    if (furthest < 0) return false
    await Promise.all(tiers.map((tier, i) => (results[i] === true ? cleared : tier.clear(key, i > furthest))))
    return true
  }

  abort(): void {
    for (const writer of this.writers) writer.abort()
  }
}

const notAdmitted = Promise.resolve(false)
const cleared = Promise.resolve()
