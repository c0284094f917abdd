import type { Body } from '@proxy/pipeline'
import type { CacheEntry, CacheMeta, CacheStore, CacheWriter, GetOptions } from './store.ts'

export interface Tier {
  readonly store: CacheStore
  /** Name in `onTierError`. */
  readonly name: string
  /** Which responses this tier keeps: `(meta) => meta.status >= 400` for negative entries alone. Default: all. */
  readonly admit?: (meta: CacheMeta) => boolean
}

export interface TieredOptions {
  /** Told of every operation that failed in one tier; the others went on. Must not throw. */
  readonly onTierError?: (tier: string, error: unknown) => void
}

/**
 * Several stores as one, nearest first. A lookup asks them in order and takes the first hit; an error in one is a miss in that one. A write goes to every
 * tier that admits it, and removes the key from the others: what was put last is what is found, so a success clears a negative entry kept elsewhere.
 */
export function tiered(tiers: readonly Tier[], options: TieredOptions = {}): CacheStore {
  return new TieredStore(tiers, options)
}

class TieredStore implements CacheStore {
  private readonly tiers: readonly Tier[]
  private readonly onTierError: NonNullable<TieredOptions['onTierError']>

  constructor(tiers: readonly Tier[], options: TieredOptions) {
    if (tiers.length === 0) throw new TypeError('tiered() needs one store at least')
    this.tiers = tiers
    this.onTierError = options.onTierError ?? (() => {})
  }

  async get(key: string, want?: GetOptions): Promise<CacheEntry | undefined> {
    for (const tier of this.tiers) {
      try {
        const entry = await tier.store.get(key, want)
        if (entry !== undefined) return entry
      } catch (error) {
        this.onTierError(tier.name, error)
      }
    }
    return undefined
  }

  put(key: string, meta: CacheMeta): CacheWriter {
    const writers: CacheWriter[] = []
    const others: Tier[] = []
    for (const tier of this.tiers) {
      if (tier.admit === undefined || tier.admit(meta)) writers.push(tier.store.put(key, meta))
      else others.push(tier)
    }
    return new TieredWriter(writers, () => {
      for (const tier of others) void tier.store.delete(key).catch((error: unknown) => this.onTierError(tier.name, error))
    })
  }

  async touch(key: string, version: string, meta: CacheMeta): Promise<boolean> {
    return this.any((store) => store.touch(key, version, meta))
  }

  async delete(key: string, version?: string): Promise<boolean> {
    return this.any((store) => store.delete(key, version), true)
  }

  async close(): Promise<void> {
    await Promise.all(this.tiers.map((tier) => tier.store.close()))
  }

  /** Runs on every tier; true when one says so. With `all`, a tier that fails makes the whole fail: a purge that missed one is not done. */
  private async any(run: (store: CacheStore) => Promise<boolean>, all = false): Promise<boolean> {
    let result = false
    let failure: unknown
    let failed = false
    await Promise.all(
      this.tiers.map(async (tier) => {
        try {
          if (await run(tier.store)) result = true
        } catch (error) {
          failed = true
          failure = error
          this.onTierError(tier.name, error)
        }
      })
    )
    if (failed && all) throw failure
    return result
  }
}

/** Writes to several tiers at once. A tier that cannot keep up or fails does not hold up the others for longer than its own store allows. */
class TieredWriter implements CacheWriter {
  private readonly writers: readonly CacheWriter[]
  private readonly onCommit: () => void

  constructor(writers: readonly CacheWriter[], onCommit: () => void) {
    this.writers = writers
    this.onCommit = onCommit
  }

  write(chunk: Uint8Array): boolean {
    let ready = true
    for (const writer of this.writers) if (!writer.write(chunk)) ready = false
    return ready
  }

  async drained(): Promise<void> {
    await Promise.all(this.writers.map((writer) => writer.drained()))
  }

  async commit(): Promise<boolean> {
    const results = await Promise.all(this.writers.map((writer) => writer.commit()))
    const stored = results.includes(true)
    if (stored) this.onCommit()
    return stored
  }

  abort(): void {
    for (const writer of this.writers) writer.abort()
  }

  get readFrom(): ((offset: number) => Body) | undefined {
    for (const writer of this.writers) if (writer.readFrom !== undefined) return (offset) => (writer.readFrom as (offset: number) => Body)(offset)
    return undefined
  }
}
