import { randomBytes } from 'node:crypto'
import type { CacheMeta, CacheWriter } from '@proxy/cache'
import type { Body } from '@proxy/pipeline'
import { DiskError, toDiskError } from './errors.ts'
import { type FollowedWrite, followWrite } from './follow.ts'
import type { DiskFile } from './io.ts'
import { bodyStartOf, type EntryName, encodeHead, isTooLargeMeta, nameOf } from './layout.ts'
import type { DropReason } from './stats.ts'
import { TemporaryFile } from './temporary-file.ts'
import { WriteBuffer } from './write-buffer.ts'
import type { WriteHost } from './write-host.ts'

/** Beyond this, `write` asks to wait. */
const HIGH_WATER_BYTES = 1024 * 1024
/** Rough cost of a write beside its bytes. */
const OVERHEAD_BYTES = 1024

/** One write: to a temporary file as the bytes come, under its own name on commit. Small ones are one write operation. */
export class DiskWriter implements CacheWriter, FollowedWrite {
  private readonly host: WriteHost
  private readonly name: EntryName
  private readonly declared: number | undefined
  readonly version = randomBytes(16).toString('hex')
  private readonly metaJson: Buffer
  private readonly buffer: WriteBuffer
  private readonly temporary: TemporaryFile
  private state: 'open' | 'committing' | 'failed' = 'open'
  readonly bodyStart: number
  available = 0
  isComplete = false
  /** Followers wait for it. */
  private changed: PromiseWithResolvers<void> | undefined
  /** Bytes taken but not written, which count as pending. */
  private unwritten = OVERHEAD_BYTES
  /** Where the next frames go. */
  private position: number
  private tail: Promise<void> = Promise.resolve()
  private ending = false
  /** Resolves when nothing of this write is under way any more, to whether it was stored. */
  readonly settled: Promise<boolean>
  private readonly settle: (stored: boolean) => void

  constructor(host: WriteHost, key: string, meta: CacheMeta, refusal: DropReason | undefined) {
    const { promise, resolve } = Promise.withResolvers<boolean>()
    this.settled = promise
    this.settle = resolve
    this.host = host
    this.name = nameOf(key)
    this.declared = meta.length
    this.buffer = new WriteBuffer(this.version)
    this.temporary = new TemporaryFile(host)
    this.metaJson = refusal === undefined ? Buffer.from(JSON.stringify(meta)) : Buffer.alloc(0)
    this.bodyStart = bodyStartOf(this.metaJson)
    this.position = this.bodyStart
    const reserved = refusal === undefined && host.reservePending(this.unwritten)
    if (!reserved) this.unwritten = 0
    if (refusal !== undefined) this.drop(refusal)
    else if ((meta.length ?? 0) > host.options.maxEntryBytes || isTooLargeMeta(this.metaJson)) this.drop('too-large')
    else if (!reserved) this.drop('no-room')
  }

  get failed(): boolean {
    return this.state === 'failed'
  }

  get isFailed(): boolean {
    return this.failed
  }

  get file(): DiskFile | undefined {
    return this.temporary.open
  }

  readFrom(offset: number): Body {
    const { options, readBlocks } = this.host
    return followWrite(this, offset, { holdTimeoutMs: options.holdTimeoutMs, read: readBlocks })
  }

  progress(): Promise<void> {
    this.changed ??= Promise.withResolvers<void>()
    return this.changed.promise
  }

  early(offset: number): Uint8Array[] {
    return this.buffer.read(offset, this.available)
  }

  write(chunk: Uint8Array): boolean {
    const { host, declared } = this
    if (this.state !== 'open' || chunk.byteLength === 0) return true
    const length = this.buffer.length + chunk.byteLength
    if (declared !== undefined && length > declared) this.abort()
    else if (length > host.options.maxEntryBytes) this.drop('too-large')
    else if (!host.reservePending(chunk.byteLength)) this.drop('no-room')
    else this.take(chunk)
    return this.failed || this.unwritten < HIGH_WATER_BYTES
  }

  async drained(): Promise<void> {
    // Each step has its deadline, and what fails ends the waiting.
    while (!this.failed && this.unwritten >= HIGH_WATER_BYTES) await this.tail
  }

  commit(): Promise<boolean> {
    if (this.state !== 'open') return Promise.resolve(false)
    if (this.declared !== undefined && this.declared !== this.buffer.length) {
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
    if (this.failed) return
    this.state = 'failed'
    this.buffer.clear()
    this.advance(0)
    this.end()
  }

  private drop(reason: DropReason): void {
    this.host.dropped(reason)
    this.cancel()
  }

  private take(chunk: Uint8Array): void {
    this.unwritten += chunk.byteLength
    this.buffer.push(chunk)
    this.advance(0)
    if (!this.buffer.isFull) return
    const bytes = this.buffer.nextBatch()
    this.tail = this.tail.then(() => this.append(bytes)).catch((error: unknown) => this.broke(error))
  }

  private async append(bytes: Buffer): Promise<void> {
    if (this.failed) return
    const at = this.position
    this.position += bytes.byteLength
    await this.temporary.put(bytes, at)
    const written = Math.min(bytes.byteLength, this.unwritten)
    this.unwritten -= written
    this.host.releasePending(written)
    this.advance(this.buffer.written())
  }

  /** Tells followers that more can be read, or that nothing will come. */
  private advance(bytes: number): void {
    this.available += bytes
    this.changed?.resolve()
    this.changed = undefined
  }

  private end(): void {
    if (this.ending) return
    this.ending = true
    void this.tail.then(() => this.conclude())
  }

  private async conclude(): Promise<void> {
    const { host } = this
    let stored = false
    try {
      if (this.state === 'committing') {
        await this.store()
        stored = true
        host.health.success()
        host.stored()
      }
    } catch (error) {
      this.broke(error)
    }
    this.temporary.end(stored)
    this.releaseUnwritten()
    this.settle(stored)
  }

  /** What an operation still has counts until that ends: a disk that hangs would otherwise gather what every write left with it. */
  private releaseUnwritten(): void {
    const { host, temporary, unwritten } = this
    const held = Math.min(temporary.inFlightBytes, unwritten)
    host.releasePending(unwritten - held)
    this.unwritten = 0
    if (held > 0) void temporary.inFlight.then(() => host.releasePending(held))
  }

  private async store(): Promise<void> {
    const { host, buffer, temporary, name, version } = this
    buffer.finish()
    const head = encodeHead(version, name.digest, buffer.length, this.metaJson)
    if (this.file === undefined) await temporary.put(buffer.nextBatch(head), 0)
    else {
      if (!buffer.isEmpty) await this.append(buffer.nextBatch())
      await temporary.put(head, 0)
    }
    buffer.clear()
    this.isComplete = true
    this.advance(buffer.length - this.available)
    if (host.options.fsync) await temporary.sync()
    if (this.failed) throw new DiskError('aborted')
    await temporary.rename(name, version)
    host.space.added(name.id, temporary.bytes)
  }

  private broke(thrown: unknown): void {
    const error = toDiskError(thrown)
    if (!this.failed) {
      this.host.health.failed(error)
      this.host.failed()
      // The write that comes next shall find room.
      if (error.kind === 'full') this.host.space.shed(this.buffer.length).catch((shedding: unknown) => this.host.health.failed(toDiskError(shedding)))
    }
    this.cancel()
  }
}
