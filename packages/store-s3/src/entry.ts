import type { CacheEntry, StoredMeta } from '@proxy/cache'
import { type Body, type ByteRange, WholeBody } from '@proxy/pipeline'
import type { PrimedBody } from './primed-body.ts'

/** What `get` found: the metadata, and of the body as much as came with it. */
export class S3Entry implements CacheEntry {
  readonly version: string
  readonly meta: StoredMeta
  private readonly bytes: Buffer | undefined
  private readonly streaming: PrimedBody | undefined
  private readonly refetch: (range: ByteRange) => Promise<Body>

  /** `body`: all bytes, a body on its way, or undefined; what is missing is read by `refetch`, which answers for the object's being the same. */
  constructor(version: string, meta: StoredMeta, body: Buffer | PrimedBody | undefined, refetch: (range: ByteRange) => Promise<Body>) {
    this.version = version
    this.meta = meta
    this.bytes = Buffer.isBuffer(body) ? body : undefined
    this.streaming = Buffer.isBuffer(body) ? undefined : body
    this.refetch = refetch
  }

  open(range?: ByteRange): Promise<Body> {
    const { bytes, streaming } = this
    const { length } = this.meta
    if (range !== undefined && range.start >= length) {
      this.discard()
      return Promise.reject(new RangeError(`the body has ${length} bytes, byte ${range.start} was asked for`))
    }
    const start = range?.start ?? 0
    const end = Math.min(range?.end ?? length - 1, length - 1)
    if (bytes !== undefined) return Promise.resolve(new WholeBody(bytes.subarray(start, end + 1)))
    if (streaming !== undefined) {
      if (start === 0 && end === length - 1 && !streaming.expired) return Promise.resolve(streaming)
      streaming.discard()
    }
    return this.refetch({ start, end })
  }

  discard(): void {
    this.streaming?.discard()
  }
}
