import { type CacheEntry, type CacheMeta, type CacheStore, type CacheWriter, type GetOptions, MemoryStore } from '../src/index.ts'

export type Operation = 'get' | 'open' | 'touch' | 'delete' | 'commit' | 'drained'

/** A store without deadlines or a breaker, over something that may be away: its operations then fail, or hang until the test lets them go on. What it says is so. */
export class OutageStore implements CacheStore {
  readonly inner: MemoryStore
  /** What becomes of an operation. Default: it is done. */
  fate: (operation: Operation, key: string) => 'done' | 'fails' | 'hangs' = () => 'done'
  /** Operations that reached it. `put` is no such: it asks for nothing. */
  readonly calls: Operation[] = []
  private held: (() => void)[] = []

  constructor(inner: MemoryStore = new MemoryStore()) {
    this.inner = inner
  }

  /** Of one kind. */
  count(operation: Operation): number {
    return this.calls.filter((call) => call === operation).length
  }

  /** All operations, or those named, share a fate from now on. */
  all(fate: 'done' | 'fails' | 'hangs', ...named: readonly Operation[]): void {
    this.fate = (operation) => (named.length === 0 || named.includes(operation) ? fate : 'done')
  }

  /** Lets those that hang go on: they are done now. */
  letGo(): void {
    for (const go of this.held.splice(0)) go()
  }

  private async reach(operation: Operation, key: string): Promise<void> {
    this.calls.push(operation)
    const fate = this.fate(operation, key)
    if (fate === 'fails') throw new Error(`${operation} failed`)
    if (fate === 'hangs') await new Promise<void>((resolve) => this.held.push(resolve))
  }

  async get(key: string, _want?: GetOptions): Promise<CacheEntry | undefined> {
    await this.reach('get', key)
    const entry = await this.inner.get(key)
    if (entry === undefined) return undefined
    return {
      version: entry.version,
      meta: entry.meta,
      discard: () => entry.discard(),
      open: async (range) => {
        await this.reach('open', key)
        return entry.open(range)
      }
    }
  }

  put(key: string, meta: CacheMeta): CacheWriter {
    const writer = this.inner.put(key, meta)
    return {
      write: (chunk) => writer.write(chunk) && this.fate('drained', key) === 'done',
      drained: () => this.reach('drained', key),
      abort: () => writer.abort(),
      commit: async () => {
        await this.reach('commit', key)
        return writer.commit()
      }
    }
  }

  async touch(key: string, version: string, meta: CacheMeta): Promise<boolean> {
    await this.reach('touch', key)
    return this.inner.touch(key, version, meta)
  }

  async delete(key: string, version?: string): Promise<boolean> {
    await this.reach('delete', key)
    return this.inner.delete(key, version)
  }

  close(): Promise<void> {
    return this.inner.close()
  }
}
