import { join } from 'node:path'
import type { CacheEntry, CacheMeta, CacheStore, CacheWriter, GetOptions } from '@proxy/cache'
import { Condemned } from './condemned.ts'
import { settledWithin, withDeadline } from './deadline.ts'
import { DiskError, isAbsent, toDiskError } from './errors.ts'
import { type DiskFault, Health } from './health.ts'
import { type DiskFile, DiskIo } from './io.ts'
import { type EntryName, nameOf, nextSlot, Places } from './layout.ts'
import { type DiskStoreOptions, type ResolvedOptions, resolveOptions } from './options.ts'
import { Owner } from './owner.ts'
import { FIRST_READ_BYTES, FileReader, type OpenedFile, type UselessReason } from './reader.ts'
import { removeExactly } from './removal.ts'
import { SpaceKeeper } from './space.ts'
import type { DiskStoreStats, DropReason } from './stats.ts'
import type { WriteHost } from './write-host.ts'
import { DiskWriter } from './writer.ts'

const ios = new WeakMap<DiskStore, DiskIo>()

/** The bound of file operations that a store keeps to, for what works beside it. */
export function ioOf(store: DiskStore): DiskIo {
  const io = ios.get(store)
  if (io === undefined) throw new TypeError('store must be a DiskStore of this copy of the package')
  return io
}

/** Cache in files: one per key, verified before a byte of it is handed out, bounded in bytes, shared by any number of processes. See layout.ts and space.ts. */
export class DiskStore implements CacheStore {
  readonly guarded = true
  private readonly options: ResolvedOptions
  private readonly places: Places
  private readonly io: DiskIo
  private readonly space: SpaceKeeper
  private readonly reader: FileReader
  private readonly readHealth: Health
  private readonly writeHealth: Health
  /** Apart from writes: from a full disk things can be removed. */
  private readonly removalHealth: Health
  private readonly owner = new Owner()
  private readonly writeHost: WriteHost
  private readonly writers = new Set<DiskWriter>()
  private readonly removals = new Map<string, Promise<void>>()
  private readonly condemned = new Condemned()
  private readonly drops: Record<DropReason, number> = { 'too-large': 0, 'no-room': 0, unavailable: 0, closed: 0 }
  private readonly unavailable = new DiskError('unavailable')
  private temporaries = 0
  private pendingBytes = 0
  private hits = 0
  private misses = 0
  private broken = 0
  private writes = 0
  private failedWrites = 0
  private closed = false

  /** Touches no file. Throws TypeError or RangeError for options that cannot be meant. */
  constructor(options: DiskStoreOptions) {
    const resolved = resolveOptions(options)
    const { failureThreshold, openMs, clock } = resolved
    const health = (side: DiskFault['side']): Health => new Health({ side, failureThreshold, openMs, clock, onFault: (fault) => this.report(fault) })
    this.options = resolved
    this.places = new Places(resolved.directory)
    this.io = new DiskIo(resolved.maxOperations, resolved.maxQueuedOperations)
    ios.set(this, this.io)
    this.readHealth = health('read')
    this.writeHealth = health('write')
    this.removalHealth = health('removal')
    const { io, places, owner } = this
    this.space = new SpaceKeeper({ io, places, owner, options: resolved, health: health('index') })
    this.reader = new FileReader({
      io,
      places,
      options: resolved,
      health: this.readHealth,
      sizeHint: (id) => this.space.sizeOf(id),
      isCondemned: (version) => this.condemned.has(version),
      foundUseless: (id, version, file, reason) => this.foundUseless(id, version, file, reason)
    })
    this.writeHost = {
      io,
      places,
      options: resolved,
      health: this.writeHealth,
      space: this.space,
      reservePending: (bytes) => this.reservePending(bytes),
      releasePending: (bytes) => {
        this.pendingBytes -= bytes
      },
      temporaryPath: () => this.temporaryPath(),
      dropped: (reason) => void this.drops[reason]++,
      failed: () => void this.failedWrites++,
      stored: () => void this.writes++,
      readBlocks: (cursor) => this.reader.readBlocks(cursor),
      givenUp: (name, version, commit) => this.givenUp(name, version, commit)
    }
  }

  /** Makes the directory and loads the index; not needed, the first use begins it too. Rejects with `DiskError` when the directory cannot be made: the store then works as far as it can. */
  prepare(): Promise<void> {
    if (this.closed) return Promise.reject(new DiskError('closed'))
    return this.space.open().catch((error: unknown) => Promise.reject(toDiskError(error)))
  }

  get(key: string, want?: GetOptions): Promise<CacheEntry | undefined> {
    if (this.closed) return Promise.reject(new DiskError('closed'))
    return this.readHealth.allow() ? this.find(nameOf(key), want) : Promise.reject(this.unavailable)
  }

  put(key: string, meta: CacheMeta): CacheWriter {
    const refusal = this.refusal()
    const writer = new DiskWriter(this.writeHost, key, meta, refusal)
    if (writer.failed) return writer
    this.writers.add(writer)
    void writer.settled.then(() => this.writers.delete(writer))
    return writer
  }

  /** False also where the metadata has grown by more than a quarter and 128 bytes: it does not fit into its place. */
  touch(key: string, version: string, meta: CacheMeta): Promise<boolean> {
    const name = nameOf(key)
    return this.change(this.writeHealth, () =>
      this.opened(name, version, 'r+', async ({ file, head, bytes }) => {
        const next = nextSlot(bytes, head, Buffer.from(JSON.stringify(meta)))
        if (next === undefined) return false
        await file.write(next.slot, next.at)
        if (this.options.fsync) await file.sync()
        return true
      })
    )
  }

  delete(key: string, version?: string): Promise<boolean> {
    const name = nameOf(key)
    return this.change(this.removalHealth, async () => {
      if (version !== undefined) return this.removeVersion(name, version)
      try {
        await this.io.unlink(this.places.file(name.id))
      } catch (error) {
        if (isAbsent(error)) return false
        throw error
      }
      this.space.removed(name.id)
      return true
    })
  }

  async close(): Promise<void> {
    if (this.closed) return
    this.closed = true
    await settledWithin(this.options.closeTimeoutMs, this.underWay())
    for (const writer of this.writers) writer.cancel()
    await settledWithin(this.options.closeTimeoutMs, this.space.close())
    this.owner.release()
  }

  stats(): DiskStoreStats {
    const { space, readHealth, writeHealth } = this
    return {
      entries: space.index.count,
      bytes: space.bytes,
      maxBytes: this.options.maxBytes,
      hits: this.hits,
      misses: this.misses,
      evictions: space.evictions,
      broken: this.broken,
      writes: this.writes,
      failedWrites: this.failedWrites,
      droppedWrites: { ...this.drops },
      pendingWrites: this.writers.size,
      pendingBytes: this.pendingBytes,
      openFiles: this.reader.openFiles,
      bytesRead: this.io.bytesRead,
      surveying: space.surveying,
      readErrors: readHealth.errors,
      writeErrors: writeHealth.errors + this.removalHealth.errors,
      timeouts: readHealth.timeouts + writeHealth.timeouts + this.removalHealth.timeouts,
      readBreaker: readHealth.state,
      writeBreaker: writeHealth.state
    }
  }

  private async find(name: EntryName, want: GetOptions | undefined): Promise<CacheEntry | undefined> {
    this.space.begin()
    const entry = await this.reader.read(name, want)
    if (entry === undefined) {
      this.misses++
      this.space.missed(name.id)
      return undefined
    }
    this.hits++
    this.space.used(name.id, entry.fileBytes)
    return entry
  }

  private refusal(): DropReason | undefined {
    if (this.closed) return 'closed'
    return this.writeHealth.allow() ? undefined : 'unavailable'
  }

  /** Something small that is waited for. Rejects with `DiskError`. */
  private async change(health: Health, act: () => Promise<boolean>): Promise<boolean> {
    if (this.closed) throw new DiskError('closed')
    if (!health.allow()) throw this.unavailable
    try {
      const done = await withDeadline(this.options.writeTimeoutMs, undefined, act, () => {})
      health.success()
      return done
    } catch (thrown) {
      const error = toDiskError(thrown)
      health.failed(error)
      throw error
    }
  }

  /** Does something with the file of that version; false when it is another one or none. */
  private async opened(name: EntryName, version: string, flags: 'r' | 'r+', act: (opened: OpenedFile) => Promise<boolean>): Promise<boolean> {
    const opened = await this.reader.openFile(name, flags, FIRST_READ_BYTES)
    if (opened === undefined) return false
    try {
      return opened.head.version === version && (await act(opened))
    } finally {
      opened.file.close()
    }
  }

  private removeVersion(name: EntryName, version: string): Promise<boolean> {
    return this.opened(name, version, 'r', async ({ file }) => {
      const removed = await removeExactly(this.io, file, this.places.file(name.id), this.temporaryPath())
      if (removed) this.space.removed(name.id)
      return removed
    })
  }

  private givenUp(name: EntryName, version: string, commit: Promise<void>): void {
    this.condemned.add(version)
    commit.then(
      () => this.removeVersion(name, version).catch((error: unknown) => this.removalHealth.failed(toDiskError(error))),
      () => {} // It never became visible, and why was told by the write.
    )
  }

  private foundUseless(id: string, version: string, file: DiskFile, reason: UselessReason): void {
    if (reason === 'broken') {
      this.broken++
      this.readHealth.failed(new DiskError('broken'))
    }
    if (this.closed || this.removals.has(id)) return
    // What could not be removed is tried again with each lookup, but not on a disk that refuses.
    if (reason === 'condemned' && this.removalHealth.state !== 'closed') return
    const removal = removeExactly(this.io, file, this.places.file(id), this.temporaryPath()).then(
      (removed) => {
        this.removals.delete(id)
        if (removed) this.space.removed(id)
      },
      (error: unknown) => {
        this.removals.delete(id)
        this.removalHealth.failed(toDiskError(error))
        if (reason === 'broken' && version !== '') this.condemned.add(version)
      }
    )
    this.removals.set(id, removal)
  }

  private temporaryPath(): string {
    return join(this.places.temporary, `${this.owner.name}.${this.temporaries++}`)
  }

  private reservePending(bytes: number): boolean {
    if (this.pendingBytes + bytes > this.options.maxPendingBytes) return false
    this.pendingBytes += bytes
    return true
  }

  private underWay(): Promise<unknown> {
    return Promise.all([...Array.from(this.writers, (writer) => writer.settled), ...this.removals.values()])
  }

  private report(fault: DiskFault): void {
    // What breaks off because the store is closed is no fault of the disk.
    if (this.closed) return
    try {
      this.options.onFault(fault)
    } catch (error) {
      // This runs where nobody could catch it: a listener's mistake must not end the process.
      process.emitWarning(error instanceof Error ? error : String(error))
    }
  }
}
