import type { Body, BodySink, ByteRange, Flow } from '@proxy/pipeline'
import { ProxyError, toSource } from '@proxy/pipeline'
import type { CacheEntry, CacheMeta, CacheStore, CacheWriter, GetOptions, MemoryStore } from '../src/index.ts'

/**
 * A store that is slow, fails, forgets and says what is not so, each as often as it is told to (0 to 1): `get` finds nothing, or what was there a while ago;
 * `commit`, `touch` and `delete` are said to have been done; bodies break off. What it hands out as whole is what was written.
 */
export class UnreliableStore implements CacheStore {
  readonly inner: MemoryStore
  /** How often something goes wrong, and how often it takes its time. */
  readonly trouble: number
  readonly slowness: number
  readonly canFollow: boolean
  /** Operations that are held up until the test lets them go on. */
  readonly held: (() => void)[] = []
  /** Every key that was ever written. */
  readonly keys = new Set<string>()
  /** Keys that may show what was deleted. */
  readonly unsure = new Set<string>()
  /** Of bodies opened: the record they belong to, and when. */
  onOpen: (meta: CacheMeta) => void = () => {}
  private readonly random: () => number
  private readonly before = new Map<string, CacheEntry>()

  constructor(inner: MemoryStore, random: () => number, options: { trouble: number; slowness: number; canFollow: boolean }) {
    this.inner = inner
    this.random = random
    this.trouble = options.trouble
    this.slowness = options.slowness
    this.canFollow = options.canFollow
  }

  async get(key: string, _want?: GetOptions): Promise<CacheEntry | undefined> {
    await this.wait()
    this.fail('get')
    if (this.chance()) return undefined
    const before = this.before.get(key)
    if (before !== undefined && this.chance()) {
      this.unsure.add(key)
      return this.wrap(before)
    }
    const entry = await this.inner.get(key)
    return entry === undefined ? undefined : this.wrap(entry)
  }

  put(key: string, meta: CacheMeta): CacheWriter {
    this.keys.add(key)
    const writer = this.inner.put(key, meta)
    const follow = this.canFollow ? { readFrom: (offset: number) => writer.readFrom?.(offset) ?? null } : {}
    const isFailed = (): boolean => writer.failed === true
    return {
      ...follow,
      write: (chunk) => writer.write(chunk) && this.random() >= this.slowness / 2,
      drained: () => this.wait(),
      abort: () => writer.abort(),
      commit: async () => {
        await this.wait()
        if (this.chance()) {
          writer.abort()
          this.fail('commit')
          // Sometimes it says that all is well.
          return this.random() < 0.5
        }
        await this.remember(key)
        return writer.commit()
      },
      get failed() {
        return isFailed()
      }
    }
  }

  async touch(key: string, version: string, meta: CacheMeta): Promise<boolean> {
    await this.wait()
    this.fail('touch')
    if (this.chance()) return this.random() < 0.5
    await this.remember(key)
    return this.inner.touch(key, version, meta)
  }

  async delete(key: string, version?: string): Promise<boolean> {
    await this.wait()
    if (this.chance()) {
      this.unsure.add(key)
      if (this.random() < 0.5) throw new Error('delete failed')
      return true
    }
    await this.remember(key)
    return this.inner.delete(key, version)
  }

  close(): Promise<void> {
    return this.inner.close()
  }

  private async remember(key: string): Promise<void> {
    const entry = await this.inner.get(key)
    if (entry !== undefined) this.before.set(key, entry)
  }

  private wrap(entry: CacheEntry): CacheEntry {
    return {
      version: entry.version,
      meta: entry.meta,
      discard: () => entry.discard(),
      open: async (range?: ByteRange) => {
        this.onOpen(entry.meta)
        await this.wait()
        this.fail('open')
        const body = await entry.open(range)
        return this.chance() ? brokenOff(body) : body
      }
    }
  }

  private chance(): boolean {
    return this.trouble > 0 && this.random() < this.trouble
  }

  private fail(operation: string): void {
    if (this.chance()) throw new Error(`${operation} failed`)
  }

  private async wait(): Promise<void> {
    if (this.slowness === 0 || this.random() >= this.slowness) return
    if (this.random() < 0.5) await new Promise<void>((resolve) => this.held.push(resolve))
    else for (let turns = Math.floor(this.random() * 4); turns >= 0; turns--) await new Promise((resolve) => setImmediate(resolve))
  }
}

/** Half of it, and then an error. */
function brokenOff(body: Body): Body {
  const source = toSource(body)
  return {
    length: source.length,
    discard: () => source.discard(),
    start(sink: BodySink): Flow {
      let bytes = 0
      let over = false
      const stop = (): void => {
        over = true
        sink.error(new ProxyError('a block is damaged', { code: 'STORE_BODY_BROKEN', status: 502, source: 'proxy' }))
      }
      const flow = source.start({
        data(chunk) {
          if (over) return false
          bytes += chunk.byteLength
          const more = sink.data(chunk.subarray(0, Math.floor(chunk.byteLength / 2)))
          if (bytes > 0 && !over) stop()
          return more
        },
        end: () => {
          if (!over) stop()
        },
        error: (error) => {
          if (!over) sink.error(error)
          over = true
        }
      })
      return {
        resume: () => flow.resume(),
        abort: () => {
          over = true
          flow.abort()
        }
      }
    }
  }
}
