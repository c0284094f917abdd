import type { CacheMeta, CacheWriter } from '@proxy/cache'
import { BlockEncoder } from '@proxy/cache/blocks'
import { encodeMeta, metaChecksum, versionOf } from './layout.ts'

/** An entry ready to be sent. */
export interface PreparedEntry {
  readonly version: string
  readonly meta: string
  readonly checksum: string
  /** Milliseconds since 1970, an integer. */
  readonly keepUntil: number
  readonly frames: readonly Buffer[]
}

/** What a writer needs of its store. */
export interface WriteAccess {
  readonly maxEntryBytes: number
  /** Takes `bytes` out of what writes under way may hold; false when there is no such room. */
  reserve(bytes: number): boolean
  release(bytes: number): void
  /** Counts a write that cannot be stored. */
  dropped(): void
  /** Never rejects. */
  send(entry: PreparedEntry): Promise<boolean>
}

/** Gathers an entry in memory, as blocks, and sends it whole on commit: Redis knows nothing of it before. */
export class RedisWriter implements CacheWriter {
  private readonly access: WriteAccess
  private readonly id: string
  private readonly keepUntil: number
  private readonly declaredLength: number | undefined
  private readonly meta: string
  private readonly encoder: BlockEncoder
  private frames: Buffer[] = []
  private reserved = 0
  private state: 'open' | 'failed' | 'committed' = 'open'

  /** `admitted`: whether there is any use in gathering. */
  constructor(access: WriteAccess, id: string, meta: CacheMeta, admitted: boolean) {
    this.access = access
    this.id = id
    this.keepUntil = Math.ceil(meta.keepUntil)
    this.declaredLength = meta.length
    this.encoder = new BlockEncoder(id)
    this.meta = admitted ? encodeMeta(meta) : ''
    if (!admitted || (meta.length ?? 0) > access.maxEntryBytes || !this.reserve(2 * this.meta.length)) this.fail()
  }

  write(chunk: Uint8Array): boolean {
    if (this.state !== 'open') return true
    const { encoder, declaredLength } = this
    const length = encoder.length + chunk.byteLength
    if (declaredLength !== undefined && length > declaredLength) this.abort()
    else if (length > this.access.maxEntryBytes || !this.reserve(chunk.byteLength)) this.fail()
    else for (const frame of encoder.push(ownBytes(chunk))) this.frames.push(frame)
    return true
  }

  drained(): Promise<void> {
    return Promise.resolve()
  }

  commit(): Promise<boolean> {
    if (this.state !== 'open') return Promise.resolve(false)
    const { encoder, declaredLength, frames, meta, keepUntil } = this
    if (declaredLength !== undefined && declaredLength !== encoder.length) {
      this.abort()
      return Promise.resolve(false)
    }
    this.state = 'committed'
    const rest = encoder.flush()
    if (rest !== undefined) frames.push(rest)
    const version = versionOf(this.id, encoder.length)
    return this.access.send({ version, meta, checksum: metaChecksum(version, meta), keepUntil, frames }).then((stored) => {
      this.release()
      return stored
    })
  }

  abort(): void {
    if (this.state !== 'open') return
    this.state = 'failed'
    this.release()
  }

  private fail(): void {
    this.access.dropped()
    this.abort()
  }

  private reserve(bytes: number): boolean {
    if (!this.access.reserve(bytes)) return false
    this.reserved += bytes
    return true
  }

  private release(): void {
    this.access.release(this.reserved)
    this.reserved = 0
    this.frames = []
  }
}

/** A chunk is often a slice of a socket's buffer, all of which it keeps alive: what is small in something large is copied, so that what is counted is what is held. */
function ownBytes(chunk: Uint8Array): Uint8Array {
  return chunk.byteLength * 2 < chunk.buffer.byteLength ? Buffer.from(chunk) : chunk
}
