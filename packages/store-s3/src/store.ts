import type { CacheEntry, CacheMeta, CacheStore, CacheWriter, GetOptions } from '@proxy/cache'
import { Sweeps } from '@proxy/cache/purging'
import type { BreakerState } from '@proxy/pipeline/breaker'
import { S3Error, toS3Error } from './errors.ts'
import { Health, type S3Fault } from './health.ts'
import { OrphanedUploads } from './multipart.ts'
import { ObjectClient } from './object-client.ts'
import { keyDigest } from './object-name.ts'
import { type ResolvedOptions, resolveOptions, type S3StoreOptions } from './options.ts'
import { encodeOverlay, OVERLAY_FIELD } from './overlay.ts'
import { ObjectReader } from './reader.ts'
import { UploadPool } from './upload-pool.ts'
import { walkObjects } from './walk.ts'
import { type DropReason, S3Writer, type WriteHost } from './writer.ts'

export interface S3StoreStats {
  readonly hits: number
  readonly misses: number
  /** Objects that were not what was written, and were removed for it. */
  readonly broken: number
  /** Writes that are visible. */
  readonly writes: number
  /** Writes that the storage failed. */
  readonly failedWrites: number
  /** Writes that were not tried, or given up, by reason. */
  readonly droppedWrites: Readonly<Record<DropReason, number>>
  readonly pendingWrites: number
  readonly pendingBytes: number
  /** Requests that failed, those out of time among them. */
  readonly readErrors: number
  readonly writeErrors: number
  readonly timeouts: number
  readonly readBreaker: BreakerState
  readonly writeBreaker: BreakerState
}

/** The longest name that S3 takes. */
const MAX_NAME_BYTES = 1024

/** One for all: during an outage every request ends here, and taking a stack costs more than the rest. */
const unavailable = new S3Error('unavailable')

/** After `closeTimeoutMs`, writes that are cut off have this long to remove what they sent. */
const ABORT_TIMEOUT_MS = 1000

/**
 * Cache on S3-compatible object storage: one object per key, verified before a byte of it is handed out. Reads answer within `firstByteTimeoutMs` or reject;
 * writes go on in the background, bounded in bytes, and are dropped rather than waited for. The AWS SDK is loaded at the first use.
 */
export class S3Store implements CacheStore {
  readonly guarded = true
  /** Removes or counts objects by their metadata: one request for each object under the prefix. Undefined with `sweepConcurrency: 0`. */
  readonly sweep?: NonNullable<CacheStore['sweep']>
  private readonly options: ResolvedOptions
  private readonly client: ObjectClient
  private readonly reader: ObjectReader
  private readonly readHealth: Health
  private readonly writeHealth: Health
  private readonly pool: UploadPool
  private readonly host: WriteHost
  private readonly writers = new Set<S3Writer>()
  /** Removals of broken and outlived objects, by name. */
  private readonly removals = new Map<string, Promise<void>>()
  private readonly drops: Record<DropReason, number> = { 'too-large': 0, 'no-room': 0, unavailable: 0, closed: 0 }
  private hits = 0
  private misses = 0
  private broken = 0
  private writes = 0
  private failedWrites = 0
  private closed = false

  constructor(options: S3StoreOptions) {
    const resolved = resolveOptions(options)
    const { failureThreshold, openMs, clock } = resolved
    const onFault = (fault: S3Fault): void => this.report(fault)
    this.options = resolved
    this.client = new ObjectClient(resolved)
    this.writeHealth = new Health({ side: 'write', failureThreshold, openMs, clock, onFault })
    this.readHealth = new Health({ side: 'read', failureThreshold, openMs, clock, onFault, shedFirst: this.writeHealth })
    this.pool = new UploadPool(resolved.maxPendingBytes, resolved.maxWriteConnections)
    this.reader = new ObjectReader(this.client, resolved, this.readHealth, (name, etag, reason) => this.foundUseless(name, etag, reason))
    if (resolved.sweepConcurrency > 0) {
      const sweeps = new Sweeps((find) => walkObjects({ client: this.client, options: resolved, isClosed: () => this.closed }, find))
      this.sweep = (matches, keep) => sweeps.sweep(matches, keep)
    }
    const orphans = new OrphanedUploads()
    this.host = {
      client: this.client,
      options: resolved,
      health: this.writeHealth,
      pool: this.pool,
      orphans,
      dropped: (reason) => void this.drops[reason]++,
      failed: () => void this.failedWrites++,
      stored: () => {
        this.writes++
        void orphans.sweep(this.client)
      },
      nameOf: (key) => this.nameOf(key)
    }
  }

  /** Loads the SDK and checks that the bucket is there and may be used, making it with `createBucket`. Rejects with `S3Error`. Not needed, but spares the first requests the loading. */
  prepare(): Promise<void> {
    return this.closed ? Promise.reject(new S3Error('closed')) : this.client.checkBucket()
  }

  get(key: string, want?: GetOptions): Promise<CacheEntry | undefined> {
    if (this.closed) return Promise.reject(new S3Error('closed'))
    return this.readHealth.allow() ? this.find(key, want) : Promise.reject(unavailable)
  }

  put(key: string, meta: CacheMeta): CacheWriter {
    const writer = new S3Writer(this.host, key, meta, this.refusal())
    this.writers.add(writer)
    void writer.settled.then(() => this.writers.delete(writer))
    return writer
  }

  async touch(key: string, version: string, meta: CacheMeta): Promise<boolean> {
    const name = this.nameOf(key)
    return this.write(async () => {
      const found = await this.reader.locate(name, keyDigest(key))
      if (found === undefined || found.head.version !== version) return false
      const overlay = encodeOverlay(version, found.head.metaJson, Buffer.from(JSON.stringify(meta)))
      if (overlay === undefined) return false
      await this.client.replaceMetadata(name, found.etag, { [OVERLAY_FIELD]: overlay })
      return true
    })
  }

  async delete(key: string, version?: string): Promise<boolean> {
    const name = this.nameOf(key)
    return this.write(async () => {
      if (version === undefined) {
        await this.client.head(name)
        await this.client.remove(name, undefined)
        return true
      }
      const found = await this.reader.locate(name, keyDigest(key))
      if (found?.head.version !== version) return false
      await this.client.remove(name, found.etag)
      return true
    })
  }

  async close(): Promise<void> {
    if (this.closed) return
    this.closed = true
    await inTime(this.options.closeTimeoutMs, this.underWay())
    for (const writer of this.writers) writer.cancel()
    await inTime(ABORT_TIMEOUT_MS, this.underWay())
    this.client.destroy()
  }

  stats(): S3StoreStats {
    return {
      hits: this.hits,
      misses: this.misses,
      broken: this.broken,
      writes: this.writes,
      failedWrites: this.failedWrites,
      droppedWrites: { ...this.drops },
      pendingWrites: this.writers.size,
      pendingBytes: this.pool.pendingBytes,
      readErrors: this.readHealth.errors,
      writeErrors: this.writeHealth.errors,
      timeouts: this.readHealth.timeouts + this.writeHealth.timeouts,
      readBreaker: this.readHealth.state,
      writeBreaker: this.writeHealth.state
    }
  }

  private nameOf(key: string): string {
    const name = this.options.prefix + this.options.objectKey(key)
    const bytes = Buffer.byteLength(name)
    if (bytes < 1 || bytes > MAX_NAME_BYTES) throw new S3Error('refused')
    return name
  }

  private report(fault: S3Fault): void {
    // What breaks off because the connections are closed is no fault of the storage.
    if (this.closed) return
    try {
      this.options.onFault(fault)
    } catch (error) {
      // This runs where nobody could catch it: a listener's mistake must not end the process.
      process.emitWarning(error instanceof Error ? error : String(error))
    }
  }

  private async find(key: string, want: GetOptions | undefined): Promise<CacheEntry | undefined> {
    const name = this.nameOf(key)
    const entry = await this.reader.read(name, keyDigest(key), want)
    if (entry === undefined) {
      this.misses++
      return undefined
    }
    this.hits++
    return entry
  }

  private refusal(): DropReason | undefined {
    if (this.closed) return 'closed'
    // While reads find nobody at home, writes leave the probing to them.
    return this.readHealth.state === 'closed' && this.writeHealth.allow() ? undefined : 'unavailable'
  }

  /** Something small that is waited for: resolves to false where the object is another one by now, or gone. */
  private async write(act: () => Promise<boolean>): Promise<boolean> {
    const refusal = this.refusal()
    if (refusal !== undefined) throw new S3Error(refusal === 'closed' ? 'closed' : 'unavailable')
    try {
      const done = await act()
      this.writeHealth.success()
      return done
    } catch (thrown) {
      const error = toS3Error(thrown)
      this.writeHealth.failed(error)
      if (error.kind === 'not-found' || error.kind === 'changed') return false
      throw error
    }
  }

  private foundUseless(name: string, etag: string, reason: 'broken' | 'outlived'): void {
    if (reason === 'broken') {
      this.broken++
      this.report({ kind: 'broken', side: 'read', error: new S3Error('broken') })
    }
    this.removeLater(name, etag)
  }

  /** Removes an object that is of no use, unless it is another one by then. */
  private removeLater(name: string, etag: string): void {
    if (this.closed || this.removals.has(name)) return
    const removal = this.write(async () => {
      // Asked first, because most servers do not know conditional deletes.
      if ((await this.client.head(name)) === etag) await this.client.remove(name, etag)
      return true
    })
    // When it fails, the next read finds the object again.
    const settled = removal.then(
      () => void this.removals.delete(name),
      () => void this.removals.delete(name)
    )
    this.removals.set(name, settled)
  }

  private underWay(): Promise<unknown> {
    return Promise.all([...Array.from(this.writers, (writer) => writer.settled), ...this.removals.values()])
  }
}

async function inTime(timeoutMs: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, timeoutMs)
  })
  await Promise.race([work, late])
  clearTimeout(timer)
}
