import type { Body } from '@proxy/pipeline'
import type { CacheWriter } from './store.ts'

/** The write to one tier, and what becomes of the tier when another one has the entry and it has not. */
export interface TierWrite {
  readonly writer: CacheWriter
  /** Removes what the tier holds under the key. Never rejects. */
  clear(): Promise<void>
}

export interface TieredWriterOptions {
  readonly writes: readonly TierWrite[]
  /** Clears the tiers that do not admit the entry. Never rejects. */
  readonly clearOthers: () => Promise<void>
  /** How long a tier may hold up the others before it is left out of this write. */
  readonly stallMs: number
}

/** Writes to several tiers at once. A tier that fails or does not keep up is left out, and the others go on. */
export class TieredWriter implements CacheWriter {
  private readonly options: TieredWriterOptions

  constructor(options: TieredWriterOptions) {
    this.options = options
  }

  get failed(): boolean {
    return this.options.writes.every(({ writer }) => writer.failed === true)
  }

  write(chunk: Uint8Array): boolean {
    let ready = true
    for (const { writer } of this.options.writes) if (!writer.write(chunk)) ready = false
    return ready
  }

  async drained(): Promise<void> {
    const { writes, stallMs } = this.options
    const slow = new Set(writes.map(({ writer }) => writer))
    const all = Promise.all(
      writes.map(async ({ writer }) => {
        await writer.drained()
        slow.delete(writer)
      })
    )
    let timer: NodeJS.Timeout | undefined
    const deadline = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, stallMs)
    })
    await Promise.race([all, deadline])
    clearTimeout(timer)
    for (const writer of slow) writer.abort()
  }

  /** True when one tier has it. The key is then gone from the tiers that have not: what was put last is what is found. */
  async commit(): Promise<boolean> {
    const { clearOthers, writes } = this.options
    const results = await Promise.all(writes.map(({ writer }) => writer.commit()))
    if (!results.includes(true)) return false
    await Promise.all([clearOthers(), ...writes.map(({ clear }, i) => (results[i] ? undefined : clear()))])
    return true
  }

  abort(): void {
    for (const { writer } of this.options.writes) writer.abort()
  }

  get readFrom(): ((offset: number) => Body) | undefined {
    const readable = this.options.writes.find(({ writer }) => writer.readFrom !== undefined && writer.failed !== true)
    return readable?.writer.readFrom?.bind(readable.writer)
  }
}
