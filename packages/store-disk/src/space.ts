import { Comparison } from './comparison.ts'
import { blocksOf, DISK_BLOCK_BYTES, EntryIndex, type Evicted } from './entry-index.ts'
import { DiskError, isAbsent, toDiskError } from './errors.ts'
import type { Health } from './health.ts'
import { IndexFiles } from './index-files.ts'
import { idWords } from './index-shard.ts'
import type { DiskIo } from './io.ts'
import type { Change } from './journal.ts'
import type { Places } from './layout.ts'
import type { ResolvedOptions } from './options.ts'
import { type Owner, placeKnown } from './owner.ts'

/** How often journals are written and those of others read. */
const EXCHANGE_MS = 1000
/** So much of `maxBytes` at most is written without telling the other stores. */
const UNANNOUNCED_SHARE = 1 / 50
/** Files removed at a time to make room. */
const EVICT_AT_ONCE = 8
/** What a full disk makes the store give up, so that the next write finds room. */
const SHED_SHARE = 1 / 32

/** What the keeper needs of its store. */
export interface SpaceHost {
  readonly io: DiskIo
  readonly options: ResolvedOptions
  readonly places: Places
  readonly health: Health
  readonly owner: Owner
}

/** Keeps the files within `maxBytes`: knows them from a snapshot and journals, shares what it does with other stores on the directory, and evicts. */
export class SpaceKeeper {
  readonly index = new EntryIndex()
  evictions = 0
  private readonly host: SpaceHost
  private readonly files: IndexFiles
  private readonly comparison: Comparison
  private temporaryBytes = 0
  private opening: Promise<void> | undefined
  private exchanging: Promise<void> | undefined
  private upkeep: Promise<void> = Promise.resolve()
  private timer: NodeJS.Timeout | undefined
  private closed = false

  constructor(host: SpaceHost) {
    this.host = host
    this.files = new IndexFiles(host, this.index)
    this.comparison = new Comparison(host, this.index, this.files, () => this.closed)
  }

  /** True until the directory has been compared with the index. */
  get surveying(): boolean {
    return this.comparison.isRunning
  }

  /** Bytes that all files take, those being written among them. */
  get bytes(): number {
    return this.index.bytes + this.temporaryBytes
  }

  /** Makes the folders and loads the index; the directory is compared with it afterwards, in the background. Rejects when the folders cannot be made; the index is loaded all the same. */
  open(): Promise<void> {
    this.opening ??= this.load()
    return this.opening
  }

  /** Begins what `open` does, for a first use that does not wait for it. */
  begin(): void {
    // Where the folders cannot be made, writes find out by themselves.
    if (this.opening === undefined) this.open().catch(() => {})
  }

  /** Takes room for bytes of a write; they are on disk until `release`. Evicts. Rejects with DISK_FULL when nothing is left to evict, or with what the system says. */
  async reserve(bytes: number): Promise<void> {
    this.temporaryBytes += bytes
    // Where the folders cannot be made, the write will find out by itself.
    await this.open().catch(() => {})
    if (this.files.unannouncedBytes > this.host.options.maxBytes * UNANNOUNCED_SHARE) await this.exchange()
    await this.evictWhile(() => this.bytes > this.host.options.maxBytes)
  }

  release(bytes: number): void {
    this.temporaryBytes -= bytes
  }

  /** Gives up a part of what is stored because the file system has less room than `maxBytes`. */
  async shed(bytes: number): Promise<void> {
    const target = this.index.bytes - Math.max(bytes, this.index.bytes * SHED_SHARE)
    await this.evictWhile(() => this.index.count > 0 && this.index.bytes > target)
  }

  /** A file is there, as large as that. */
  added(id: string, fileBytes: number): void {
    const change = { id: idWords(id), blocks: blocksOf(fileBytes) }
    this.index.set(change.id, change.blocks)
    this.files.note(change)
  }

  removed(id: string): void {
    const change = { id: idWords(id), blocks: 0 }
    if (this.index.remove(change.id)) this.files.note(change)
  }

  /** A file was read: one that is not in the index gets into it. */
  used(id: string, fileBytes: number): void {
    if (!this.index.use(id)) this.added(id, fileBytes)
  }

  /** There was no file of ours under this name. */
  missed(id: string): void {
    if (this.index.count > 0) void this.verify(id)
  }

  /** Bytes of a file, rounded up; 0 where it is not known. */
  sizeOf(id: string): number {
    return this.index.blocksFor(id) * DISK_BLOCK_BYTES
  }

  /** Writes what is left to the journal and the snapshot. Never rejects. */
  async close(): Promise<void> {
    this.closed = true
    clearTimeout(this.timer)
    if (this.opening !== undefined) {
      // Whoever awaited `open` was told why it failed; the index, such as it is, is kept all the same.
      await this.opening.catch(() => {})
      await this.upkeep
      await this.exchanging
      try {
        await this.files.conclude()
      } catch (error) {
        this.host.health.failed(toDiskError(error))
      }
    }
    this.files.close()
  }

  private async load(): Promise<void> {
    const { io, places, health } = this.host
    let failure: unknown
    await placeKnown()
    try {
      for (const folder of [places.entries, places.temporary, places.index]) await io.mkdir(folder)
    } catch (error) {
      failure = error
    }
    try {
      await this.files.load((change) => this.apply(change))
    } catch (error) {
      health.failed(toDiskError(error))
    }
    if (!this.closed) {
      this.upkeep = this.compare()
      this.schedule()
    }
    if (failure !== undefined) throw failure
  }

  private schedule(): void {
    this.timer = setTimeout(() => {
      this.exchange().then(
        () => !this.closed && this.schedule(),
        () => {}
      )
    }, EXCHANGE_MS).unref()
  }

  /** Tells the other stores what this one did, and learns what they did. Never rejects. */
  private exchange(): Promise<void> {
    this.exchanging ??= this.share().finally(() => {
      this.exchanging = undefined
    })
    return this.exchanging
  }

  private async share(): Promise<void> {
    const { health } = this.host
    try {
      await this.files.share((change) => this.applyOthers(change))
      health.success()
    } catch (error) {
      health.failed(toDiskError(error))
    }
    if (!this.closed && this.comparison.isDue) this.upkeep = this.compare()
  }

  private apply({ id, blocks }: Change): void {
    if (blocks === 0) this.index.remove(id)
    else this.index.set(id, blocks)
  }

  /** What another store removed may have been put again by this one since: only the file itself can tell. */
  private applyOthers(change: Change): void {
    if (change.blocks > 0) this.apply(change)
    else void this.verify(change.id.map((word) => word.toString(16).padStart(8, '0')).join(''))
  }

  private async verify(id: string): Promise<void> {
    if (this.index.blocksFor(id) === 0) return
    const { io, places } = this.host
    try {
      const { size } = await io.stat(places.file(id))
      this.index.set(idWords(id), blocksOf(size))
    } catch (error) {
      // Whatever else it is: the survey looks again.
      if (isAbsent(error)) this.index.remove(idWords(id))
    }
  }

  private compare(): Promise<void> {
    return this.comparison.run(() => this.evictWhile(() => this.bytes > this.host.options.maxBytes))
  }

  private async evictWhile(needed: () => boolean): Promise<void> {
    while (needed()) {
      const removals: Promise<void>[] = []
      while (removals.length < EVICT_AT_ONCE && needed()) {
        const evicted = this.index.evict()
        if (evicted === undefined) break
        removals.push(this.remove(evicted))
      }
      if (removals.length === 0) throw new DiskError('full')
      await Promise.all(removals)
    }
  }

  private async remove({ id, blocks }: Evicted): Promise<void> {
    const { io, places } = this.host
    const words = idWords(id)
    try {
      await io.unlink(places.file(id))
    } catch (error) {
      if (!isAbsent(error)) {
        this.index.set(words, blocks)
        throw error
      }
    }
    this.evictions++
    this.files.note({ id: words, blocks: 0 })
  }
}
