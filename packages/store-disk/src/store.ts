import { join } from 'node:path'
import type { CacheEntry, CacheMeta, CacheStore, CacheWriter, GetOptions, StoredMeta } from '@proxy/cache'
import { Sweeps } from '@proxy/cache/purging'
import { settledWithin, withDeadline } from './deadline.ts'
import { DiskError, isAbsent, toDiskError } from './errors.ts'
import { type DiskFault, Health } from './health.ts'
import { type DiskFile, DiskIo } from './io.ts'
import { type EntryName, nameOf, nextSlot, Places } from './layout.ts'
import { type DiskStoreOptions, type ResolvedOptions, resolveOptions } from './options.ts'
import { Owner } from './owner.ts'
import { FIRST_READ_BYTES, FileReader, type OpenedFile } from './reader.ts'
import { Removals } from './removals.ts'
import { SpaceKeeper } from './space.ts'
import type { DiskStoreStats, DropReason } from './stats.ts'
import { walkFiles } from './walk.ts'
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
  private readonly sweeps: Sweeps
  private readonly writeHost: WriteHost
  private readonly writers = new Set<DiskWriter>()
  private readonly removals: Removals
  private readonly drops: Record<DropReason, number> = { 'too-large': 0, 'no-room': 0, unavailable: 0, closed: 0 }
  private readonly unavailable = new DiskError('unavailable')
  private temporaries = 0
  private pendingBytes = 0
  private hits = 0
  private misses = 0
  private writes = 0
  private failedWrites = 0
  private closed = false
  private closing: Promise<void> | undefined

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
    const isClosed = (): boolean => this.closed
    const temporaryPath = (): string => join(places.temporary, `${owner.name}.${this.temporaries++}`)
    const { readHealth, removalHealth } = this
    const removals = new Removals({ io, places, readHealth, removalHealth, isClosed, temporaryPath, removed: (id) => this.space.removed(id) })
    this.removals = removals
    const isCondemned = (version: string): boolean => removals.condemned.has(version)
    this.reader = new FileReader({
      io,
      places,
      options: resolved,
      health: readHealth,
      sizeHint: (id) => this.space.sizeOf(id),
      isCondemned,
      foundUseless: (id, version, file, reason) => removals.foundUseless(id, version, file, reason)
    })
    const walked = { io, places, options: resolved, isClosed, isCondemned, remove: (id: string, file: DiskFile) => removals.remove(id, file) }
    this.sweeps = new Sweeps((find) => walkFiles(walked, find))
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
      temporaryPath,
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

  /** Looks at every file, in the background and a few at a time. Rejects with `DiskError` when one could not be looked at or removed. */
  async sweep(matches: (meta: StoredMeta) => boolean, keep: boolean): Promise<number> {
    if (this.closed) throw new DiskError('closed')
    try {
      return await this.sweeps.sweep(matches, keep)
    } catch (error) {
      throw toDiskError(error)
    }
  }

  close(): Promise<void> {
    this.closing ??= this.end()
    return this.closing
  }

  private async end(): Promise<void> {
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
      broken: this.removals.broken,
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
    return this.opened(name, version, 'r', ({ file }) => this.removals.remove(name.id, file))
  }

  private givenUp(name: EntryName, version: string, commit: Promise<void>): void {
    this.removals.condemned.add(version)
    commit.then(
      () => this.removeVersion(name, version).catch((error: unknown) => this.removalHealth.failed(toDiskError(error))),
      () => {} // It never became visible, and why was told by the write.
    )
  }

  private reservePending(bytes: number): boolean {
    if (this.pendingBytes + bytes > this.options.maxPendingBytes) return false
    this.pendingBytes += bytes
    return true
  }

  private underWay(): Promise<unknown> {
    return Promise.all([...Array.from(this.writers, (writer) => writer.settled), this.removals.settled()])
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
