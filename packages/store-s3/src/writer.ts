import { randomBytes } from 'node:crypto'
import type { CacheMeta, CacheWriter } from '@proxy/cache'
import { BlockEncoder } from '@proxy/cache/blocks'
import { S3Error, toS3Error } from './errors.ts'
import { encodeHead, MAX_META_BYTES } from './frame.ts'
import type { Health } from './health.ts'
import { MultipartUpload, type OrphanedUploads } from './multipart.ts'
import type { ObjectClient } from './object-client.ts'
import { keyDigest } from './object-name.ts'
import type { ResolvedOptions } from './options.ts'
import type { UploadPool } from './upload-pool.ts'

/** Why a write was not even tried, or given up: labels of a metric. */
export type DropReason = 'too-large' | 'no-room' | 'unavailable' | 'closed'

/** What a write needs of its store. */
export interface WriteHost {
  readonly client: ObjectClient
  readonly options: ResolvedOptions
  readonly health: Health
  readonly pool: UploadPool
  readonly orphans: OrphanedUploads
  dropped(reason: DropReason): void
  failed(): void
  stored(): void
  nameOf(key: string): string
}

/** Rough cost of a write beside its bytes. */
const OVERHEAD_BYTES = 1024

/**
 * One write, sent in the background: as one object when it is small, in parts when it is not. It never asks its writer to wait: what does not fit into the
 * store's budget is dropped. Where the body's length is not declared, the first part (whose head holds the length) is kept back and sent last.
 */
export class S3Writer implements CacheWriter {
  private readonly host: WriteHost
  private readonly key: string
  private readonly declared: number | undefined
  private readonly version = randomBytes(16).toString('hex')
  private readonly metaJson: Buffer
  private readonly encoder: BlockEncoder
  private readonly isProbe: boolean
  private readonly controller = new AbortController()
  private state: 'open' | 'committing' | 'failed' = 'open'
  private frames: Buffer[] = []
  private gathered = 0
  private reserved = 0
  private parts = 0
  private firstPart: Buffer[] | undefined
  private upload: MultipartUpload | undefined
  private tail: Promise<unknown> = Promise.resolve()
  private ending = false
  /** Resolves when nothing of this write is under way any more, to whether it was stored. */
  readonly settled: Promise<boolean>
  private readonly settle: (stored: boolean) => void

  constructor(host: WriteHost, key: string, meta: CacheMeta, refusal: DropReason | undefined) {
    const { promise, resolve } = Promise.withResolvers<boolean>()
    this.settled = promise
    this.settle = resolve
    this.host = host
    this.key = key
    this.declared = meta.length
    this.isProbe = host.health.state === 'half-open'
    this.encoder = new BlockEncoder(this.version)
    this.metaJson = refusal === undefined ? Buffer.from(JSON.stringify(meta)) : Buffer.alloc(0)
    const cost = this.metaJson.byteLength + OVERHEAD_BYTES
    if (refusal !== undefined) this.drop(refusal)
    else if (meta.v !== 1) this.abort()
    else if (this.metaJson.byteLength > MAX_META_BYTES || (meta.length ?? 0) > host.options.maxEntryBytes) this.drop('too-large')
    else if (!host.pool.reserve(cost)) this.drop('no-room')
    else this.reserved = cost
  }

  /** Always true: waiting for the storage would slow down the client. */
  write(chunk: Uint8Array): boolean {
    if (this.state !== 'open' || chunk.byteLength === 0) return true
    const { host, declared } = this
    const length = this.encoder.length + chunk.byteLength
    if (declared !== undefined && length > declared) this.abort()
    else if (length > host.options.maxEntryBytes) this.drop('too-large')
    else if (!host.pool.reserve(chunk.byteLength)) this.drop('no-room')
    else this.take(chunk)
    return true
  }

  /** Resolves at once, see `write`. */
  drained(): Promise<void> {
    return Promise.resolve()
  }

  commit(): Promise<boolean> {
    if (this.state !== 'open') return Promise.resolve(false)
    if (this.declared !== undefined && this.declared !== this.encoder.length) {
      this.abort()
      return Promise.resolve(false)
    }
    this.state = 'committing'
    this.end()
    return this.settled
  }

  abort(): void {
    if (this.state === 'open') this.cancel()
  }

  /** Gives up the write, also one that is being committed. */
  cancel(): void {
    if (this.state === 'failed') return
    this.state = 'failed'
    this.frames = []
    this.firstPart = undefined
    this.controller.abort()
    this.end()
  }

  private drop(reason: DropReason): void {
    this.host.dropped(reason)
    this.cancel()
  }

  private take(chunk: Uint8Array): void {
    this.reserved += chunk.byteLength
    // More is coming, so what is gathered is not the last part.
    if (this.gathered >= this.host.options.partBytes) this.sealPart()
    for (const frame of this.encoder.push(chunk)) {
      this.frames.push(frame)
      this.gathered += frame.byteLength
    }
  }

  private sealPart(): void {
    const { frames } = this
    this.frames = []
    this.gathered = 0
    const number = ++this.parts
    if (number === 1 && this.declared === undefined) this.firstPart = frames
    else this.queue(number, number === 1 ? [this.head(this.declared as number), ...frames] : frames)
  }

  private head(length: number): Buffer {
    return encodeHead({ version: this.version, keyDigest: keyDigest(this.key), length, metaJson: this.metaJson })
  }

  private queue(number: number, buffers: Buffer[]): void {
    this.tail = this.tail.then(() => this.send(number, buffers)).catch((error: unknown) => this.broke(error))
  }

  private async send(number: number, buffers: Buffer[]): Promise<void> {
    if (this.cancelled()) return
    await this.inTurn(async () => {
      this.upload ??= await MultipartUpload.begin(this.host.client, this.host.nameOf(this.key))
      const part = Buffer.concat(buffers)
      buffers.length = 0
      await this.upload.send(number, part, this.controller.signal)
      const sent = Math.min(part.byteLength, this.reserved)
      this.reserved -= sent
      this.host.pool.release(sent)
    })
  }

  /** Does one request when it is its turn: taken for a request, not for the write, so that a body that comes slowly holds up no other. */
  private async inTurn(act: () => Promise<void>): Promise<void> {
    const { pool, health } = this.host
    await pool.enter()
    try {
      if (this.cancelled()) throw new S3Error('aborted')
      // Since this write began, the breaker may have opened.
      if (health.state === 'open' || (health.state === 'half-open' && !this.isProbe)) throw new S3Error('unavailable')
      await act()
    } finally {
      pool.leave()
    }
  }

  private cancelled(): boolean {
    return this.state === 'failed'
  }

  private broke(thrown: unknown): void {
    const error = toS3Error(thrown)
    if (this.state !== 'failed') {
      if (error.kind === 'unavailable') this.host.dropped('unavailable')
      else {
        this.host.health.failed(error)
        this.host.failed()
      }
    }
    this.cancel()
  }

  private end(): void {
    if (this.ending) return
    this.ending = true
    void this.tail.then(() => this.conclude())
  }

  private async conclude(): Promise<void> {
    let stored = false
    try {
      if (this.state === 'committing') {
        await this.store()
        stored = true
        this.host.health.success()
        this.host.stored()
      }
    } catch (error) {
      this.broke(error)
    }
    if (!stored) await this.upload?.abort(this.host.orphans)
    this.host.pool.release(this.reserved)
    this.reserved = 0
    this.settle(stored)
  }

  private async store(): Promise<void> {
    const last = this.encoder.flush()
    const rest = last === undefined ? this.frames : [...this.frames, last]
    this.frames = []
    const { firstPart } = this
    if (this.parts === 0) {
      await this.inTurn(() => {
        const bytes = Buffer.concat([this.head(this.encoder.length), ...rest])
        rest.length = 0
        return this.host.client.put(this.host.nameOf(this.key), bytes, this.controller.signal)
      })
      return
    }
    this.firstPart = undefined
    if (firstPart !== undefined) await this.send(1, [this.head(this.encoder.length), ...firstPart])
    if (rest.length > 0) await this.send(this.parts + 1, rest)
    if (this.cancelled() || this.upload === undefined) throw new S3Error('aborted')
    await this.upload.complete()
  }
}
