import { randomBytes } from 'node:crypto'
import type { CacheMeta, CacheWriter } from '@proxy/cache'
import { BLOCK_BYTES, BLOCK_OVERHEAD_BYTES, BlockEncoder } from '@proxy/cache/blocks'
import type { Body } from '@proxy/pipeline'
import { withDeadline } from './deadline.ts'
import { DiskError, toDiskError } from './errors.ts'
import { type FollowedWrite, followWrite } from './follow.ts'
import type { DiskFile } from './io.ts'
import { bodyStartOf, type EntryName, encodeHead, isTooLargeMeta, nameOf } from './layout.ts'
import type { DropReason } from './stats.ts'
import type { WriteHost } from './write-host.ts'

const FRAME_BYTES = BLOCK_BYTES + BLOCK_OVERHEAD_BYTES
/** What is written at a time. */
const FLUSH_BYTES = 256 * 1024
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
  private readonly encoder: BlockEncoder
  /** Of the temporary file: only the store that is open knows it. */
  private path = ''
  private state: 'open' | 'committing' | 'failed' = 'open'
  file: DiskFile | undefined
  readonly bodyStart: number
  available = 0
  isComplete = false
  /** Followers wait for it. */
  private changed: PromiseWithResolvers<void> | undefined
  private frames: Buffer[] = []
  /** What was gathered of frames and is on its way to the file, in order. */
  private batches: Buffer[] = []
  private gathered = 0
  /** Bytes taken but not written, which count as pending. */
  private unwritten = OVERHEAD_BYTES
  /** Where the next frames go. */
  private position: number
  /** Bytes that a file operation has: also beyond its deadline, as it cannot be cut off. */
  private inFlightBytes = 0
  private inFlight: Promise<void> = Promise.resolve()
  /** Room taken on the disk. */
  private onDisk = 0
  private tail: Promise<void> = Promise.resolve()
  private ending = false
  private settledAlready = false
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
    this.encoder = new BlockEncoder(this.version)
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

  readFrom(offset: number): Body {
    const { options, readBlocks } = this.host
    return followWrite(this, offset, { holdTimeoutMs: options.holdTimeoutMs, read: readBlocks })
  }

  progress(): Promise<void> {
    this.changed ??= Promise.withResolvers<void>()
    return this.changed.promise
  }

  early(offset: number): Uint8Array[] {
    let start = this.available
    for (const framed of [...this.batches, ...this.frames]) {
      const bytes = framed.byteLength - Math.ceil(framed.byteLength / FRAME_BYTES) * BLOCK_OVERHEAD_BYTES
      const skip = offset - start
      if (skip < bytes) {
        const frame = Math.floor(skip / BLOCK_BYTES) * FRAME_BYTES
        return [framed.subarray(frame + BLOCK_OVERHEAD_BYTES + (skip % BLOCK_BYTES), frame + FRAME_BYTES)]
      }
      start += bytes
    }
    const parts: Uint8Array[] = []
    for (const part of this.encoder.unfinished) {
      if (offset - start < part.byteLength) parts.push(part.subarray(Math.max(0, offset - start)))
      start += part.byteLength
    }
    return parts
  }

  write(chunk: Uint8Array): boolean {
    const { host, declared } = this
    if (this.state !== 'open' || chunk.byteLength === 0) return true
    const length = this.encoder.length + chunk.byteLength
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
    if (this.failed) return
    this.state = 'failed'
    this.frames = []
    this.batches = []
    this.advance(0)
    this.end()
  }

  private drop(reason: DropReason): void {
    this.host.dropped(reason)
    this.cancel()
  }

  private take(chunk: Uint8Array): void {
    this.unwritten += chunk.byteLength
    for (const frame of this.encoder.push(ownBytes(chunk))) {
      this.frames.push(frame)
      this.gathered += frame.byteLength
    }
    this.advance(0)
    if (this.gathered < FLUSH_BYTES) return
    const bytes = this.nextBatch()
    this.gathered = 0
    this.tail = this.tail.then(() => this.append(bytes)).catch((error: unknown) => this.broke(error))
  }

  private nextBatch(): Buffer {
    const bytes = Buffer.concat(this.frames)
    this.frames = []
    this.batches.push(bytes)
    return bytes
  }

  private async append(bytes: Buffer): Promise<void> {
    if (this.failed) return
    const at = this.position
    this.position += bytes.byteLength
    await this.put(bytes, at)
    const written = Math.min(bytes.byteLength, this.unwritten)
    this.unwritten -= written
    this.host.releasePending(written)
    this.batches.shift()
    // The last block may be a shorter one, which counts once the write is complete.
    this.advance(Math.floor(bytes.byteLength / FRAME_BYTES) * BLOCK_BYTES)
  }

  /** Tells followers that more can be read, or that nothing will come. */
  private advance(bytes: number): void {
    this.available += bytes
    this.changed?.resolve()
    this.changed = undefined
  }

  /** Writes into the temporary file, which is made first. */
  private put(bytes: Buffer, position: number): Promise<void> {
    this.inFlightBytes = bytes.byteLength
    const work = this.putNow(bytes, position)
    const ended = (): void => {
      this.inFlightBytes = 0
    }
    this.inFlight = work.then(ended, ended)
    return this.step(() => work)
  }

  private async putNow(bytes: Buffer, position: number): Promise<void> {
    const { host } = this
    this.onDisk += bytes.byteLength
    await host.space.reserve(bytes.byteLength)
    if (this.file === undefined) {
      this.path = host.temporaryPath()
      const file = await host.io.openNew(this.path, host.places.temporary)
      if (this.settledAlready) {
        // Given up meanwhile: what ended the write had nothing to remove yet.
        file.close()
        this.unlink()
        return
      }
      this.file = file
    }
    await this.file.write(bytes, position)
  }

  private step<T>(work: () => Promise<T>): Promise<T> {
    return withDeadline(this.host.options.writeTimeoutMs, undefined, work, () => {})
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
    this.settledAlready = true
    if (!stored && this.file !== undefined) this.unlink()
    this.file?.close()
    host.space.release(this.onDisk)
    this.releaseUnwritten()
    this.settle(stored)
  }

  /** What an operation still has counts until that ends: a disk that hangs would otherwise gather what every write left with it. */
  private releaseUnwritten(): void {
    const { host, unwritten } = this
    const held = Math.min(this.inFlightBytes, unwritten)
    host.releasePending(unwritten - held)
    this.unwritten = 0
    if (held > 0) void this.inFlight.then(() => host.releasePending(held))
  }

  private async store(): Promise<void> {
    const { host, encoder, name, version } = this
    const last = encoder.flush()
    if (last !== undefined) this.frames.push(last)
    const head = encodeHead(version, name.digest, encoder.length, this.metaJson)
    if (this.file === undefined) await this.put(Buffer.concat([head, ...this.frames]), 0)
    else {
      if (this.frames.length > 0) await this.append(this.nextBatch())
      await this.put(head, 0)
    }
    this.frames = []
    this.isComplete = true
    this.advance(encoder.length - this.available)
    const { file } = this
    if (host.options.fsync) await this.step(async () => file?.sync())
    const rename = (): Promise<void> => host.io.rename(this.path, host.places.file(name.id))
    if (this.failed) throw new DiskError('aborted')
    const commit = host.io.inFolder(host.places.shard(name.id), rename)
    try {
      await this.step(() => commit)
    } catch (error) {
      host.givenUp(name, version, commit)
      throw error
    }
    host.space.added(name.id, this.onDisk)
  }

  private broke(thrown: unknown): void {
    const error = toDiskError(thrown)
    if (!this.failed) {
      this.host.health.failed(error)
      this.host.failed()
      // The write that comes next shall find room.
      if (error.kind === 'full') this.host.space.shed(this.encoder.length).catch((shedding: unknown) => this.host.health.failed(toDiskError(shedding)))
    }
    this.cancel()
  }

  private unlink(): void {
    // Where it cannot be removed, the next start does it.
    this.host.io.unlink(this.path).catch(() => {})
  }
}

/** A chunk is often a slice of a socket's buffer, all of which it keeps alive: what is small in something large is copied, so that what is counted is what is held. */
function ownBytes(chunk: Uint8Array): Uint8Array {
  return chunk.byteLength * 2 < chunk.buffer.byteLength ? Buffer.from(chunk) : chunk
}
