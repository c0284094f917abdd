import type { Readable } from 'node:stream'
import type { CacheMeta, GetOptions, StoredMeta } from '@proxy/cache'
import { BLOCK_BYTES, framedRange, readBlocks } from '@proxy/cache/blocks'
import { type Body, type ByteRange, createHeaders, WholeBody } from '@proxy/pipeline'
import { withDeadline } from './deadline.ts'
import { S3Entry } from './entry.ts'
import { S3Error, toS3Error } from './errors.ts'
import { FIXED_BYTES, HEAD_BYTES, type ObjectHead, objectSize } from './frame.ts'
import type { Health } from './health.ts'
import { IncomingObject } from './incoming.ts'
import type { FetchedObject, ObjectClient, ObjectRange } from './object-client.ts'
import type { ResolvedOptions } from './options.ts'
import { decodeOverlay, OVERLAY_FIELD } from './overlay.ts'
import { PrimedBody } from './primed-body.ts'

/** The head of an object, with its place in the bucket. */
interface LocatedHead {
  readonly name: string
  readonly etag: string
  readonly head: ObjectHead
  /** As of the last touch. */
  readonly meta: StoredMeta
}

type Found = { readonly located: LocatedHead; readonly body: Buffer | PrimedBody | undefined }

/** Told of an object that is to be removed: it is not what was written, or nobody can use it any more. */
type OnUseless = (name: string, etag: string, reason: 'broken' | 'outlived') => void

const headRange: ObjectRange = { start: 0, end: HEAD_BYTES - 1 }

/** Reads and verifies objects, each read within one deadline. */
export class ObjectReader {
  private readonly client: ObjectClient
  private readonly options: ResolvedOptions
  private readonly health: Health
  private readonly onUseless: OnUseless
  /** Reads that have a connection or wait for one, and those of them that last as long as their reader likes. */
  private asked = 0
  private streaming = 0

  constructor(client: ObjectClient, options: ResolvedOptions, health: Health, onUseless: OnUseless) {
    this.client = client
    this.options = options
    this.health = health
    this.onUseless = onUseless
  }

  /** The entry under `name`, its first block verified where all of it is wanted; undefined for none of ours. Rejects with `S3Error`. */
  async read(name: string, keyDigest: string, want: GetOptions | undefined): Promise<S3Entry | undefined> {
    const all = want?.body === undefined || want.body === 'all'
    const found = await this.inTime(want?.signal, (signal) => this.find(name, keyDigest, all, signal), releaseFound)
    if (found === undefined) return undefined
    const { located, body } = found
    return new S3Entry(located.head.version, located.meta, body, (range) => this.readRange(located, range))
  }

  /** The head of the object under `name`, within the deadline of writes. */
  async locate(name: string, keyDigest: string): Promise<LocatedHead | undefined> {
    const find = (signal: AbortSignal): Promise<Found | undefined> => this.find(name, keyDigest, false, signal)
    const found = await withDeadline(this.options.requestTimeoutMs, undefined, find, releaseFound)
    releaseFound(found)
    return found?.located
  }

  private async inTime<T>(outer: AbortSignal | undefined, work: (signal: AbortSignal) => Promise<T>, late: (value: T) => void): Promise<T> {
    const { ready } = this.client
    const { maxReadConnections } = this.options
    if (this.streaming >= maxReadConnections) throw new S3Error('unavailable')
    const queued = this.asked >= maxReadConnections
    try {
      const value = await withDeadline(this.options.firstByteTimeoutMs, outer, work, late)
      this.health.success()
      return value
    } catch (thrown) {
      const error = toS3Error(thrown)
      // Without the SDK loaded or a connection free, the time went by in this process.
      if (error.kind !== 'timeout' || (ready && !queued)) this.health.failed(error)
      throw error
    }
  }

  private async find(name: string, keyDigest: string, all: boolean, signal: AbortSignal): Promise<Found | undefined> {
    const fetched = await this.fetch(name, all ? undefined : headRange, undefined, signal)
    if (fetched === undefined) return undefined
    const { etag, size } = fetched
    const incoming = this.incoming(fetched, signal)
    const head = size < FIXED_BYTES ? 'broken' : await incoming.readHead()
    if (head === 'unknown') return leave(incoming)
    if (head === 'broken' || objectSize(head) !== size) {
      this.onUseless(name, etag, 'broken')
      return leave(incoming)
    }
    if (head.keyDigest !== keyDigest) return leave(incoming)
    const meta = metaOf(head, fetched.metadata)
    if (meta === undefined) {
      this.onUseless(name, etag, 'broken')
      return leave(incoming)
    }
    if (meta.v !== 1) return leave(incoming)
    if (meta.keepUntil <= this.options.clock.wallMs()) {
      this.onUseless(name, etag, 'outlived')
      return leave(incoming)
    }
    const located = { name, etag, head, meta }
    if (head.length === 0) {
      incoming.drain()
      return { located, body: Buffer.alloc(0) }
    }
    if (!all && size > HEAD_BYTES) {
      // A server that knows no ranges sends everything.
      if (fetched.bytes <= HEAD_BYTES) incoming.drain()
      else incoming.abort()
      return { located, body: undefined }
    }
    const body = await this.primed(incoming, located, undefined)
    return body && { located, body: this.handOut(body, fetched.stream) }
  }

  private async readRange(located: LocatedHead, range: ByteRange): Promise<Body> {
    if (!this.health.allow()) throw new S3Error('unavailable')
    const { name, etag, head } = located
    const bodyStart = FIXED_BYTES + head.metaJson.byteLength
    const framed = framedRange(range, head.length)
    const start = bodyStart + framed.start
    const find = async (signal: AbortSignal): Promise<Buffer | PrimedBody> => {
      const fetched = await this.fetch(name, { start, end: bodyStart + framed.end }, etag, signal)
      if (fetched === undefined) throw new S3Error('changed')
      const incoming = this.incoming(fetched, signal)
      if (fetched.start !== start || fetched.size !== objectSize(head)) {
        incoming.abort()
        throw new S3Error('unsupported')
      }
      const body = await this.primed(incoming, located, range)
      if (body === undefined) throw new S3Error('broken')
      return this.handOut(body, fetched.stream)
    }
    const body = await this.inTime(undefined, find, (late) => late instanceof PrimedBody && late.discard())
    return Buffer.isBuffer(body) ? new WholeBody(body) : body
  }

  /** The bytes, when all have come. Otherwise the body keeps its connection until its reader is done. */
  private handOut(body: PrimedBody, stream: Readable): Buffer | PrimedBody {
    const bytes = body.whole()
    if (bytes !== undefined) return bytes
    this.streaming++
    whenClosed(stream, () => this.streaming--)
    return body
  }

  /** The object, or undefined where there is none. */
  private async fetch(name: string, range: ObjectRange | undefined, ifMatch: string | undefined, signal: AbortSignal): Promise<FetchedObject | undefined> {
    this.asked++
    try {
      const fetched = await this.client.get(name, { signal, ...(range !== undefined && { range }), ...(ifMatch !== undefined && { ifMatch }) })
      whenClosed(fetched.stream, () => this.asked--)
      return fetched
    } catch (thrown) {
      this.asked--
      const error = toS3Error(thrown)
      if (error.kind === 'not-found' || (error.kind === 'no-bucket' && this.options.createBucket)) return undefined
      // Of an object that is empty no range can be had.
      if (error.kind === 'range' && ifMatch === undefined) return undefined
      throw error
    }
  }

  private incoming(fetched: FetchedObject, signal: AbortSignal): IncomingObject {
    return new IncomingObject(fetched.stream, this.options.idleTimeoutMs, (error) => {
      // After the deadline it is we who cut it off, and that has been counted.
      if (!signal.aborted) this.health.failed(error)
    })
  }

  /** The blocks that `incoming` brings, the first of them verified; undefined when that one is broken. */
  private async primed(incoming: IncomingObject, { name, etag, head }: LocatedHead, range: ByteRange | undefined): Promise<PrimedBody | undefined> {
    let broken = false
    const onBroken = (): void => {
      broken = true
      this.onUseless(name, etag, 'broken')
    }
    const blocks = readBlocks(incoming, { version: head.version, length: head.length, onBroken, ...(range !== undefined && { range }) })
    const body = new PrimedBody(blocks, blocks.length ?? BLOCK_BYTES, this.options.idleTimeoutMs)
    try {
      await body.prime()
      return body
    } catch (error) {
      if (broken) return undefined
      throw error
    }
  }
}

function whenClosed(stream: Readable, act: () => void): void {
  if (stream.closed) act()
  else stream.once('close', act)
}

function releaseFound(found: Found | undefined): void {
  if (found?.body instanceof PrimedBody) found.body.discard()
}

function leave(incoming: IncomingObject): undefined {
  incoming.abort()
  return undefined
}

/** The metadata of an object as of its last touch; undefined when it is not metadata at all. */
export function metaOf(head: ObjectHead, metadata: Readonly<Record<string, string>>): StoredMeta | undefined {
  const overlay = metadata[OVERLAY_FIELD]
  const touched = overlay === undefined ? undefined : decodeOverlay(head.version, head.metaJson, overlay)
  return parseMeta(touched ?? head.metaJson, head.length)
}

/** The metadata in `json`, its headers without a prototype; undefined when it is not metadata at all. */
function parseMeta(json: Buffer, length: number): StoredMeta | undefined {
  try {
    const meta = JSON.parse(json.toString()) as CacheMeta
    return typeof meta !== 'object' || meta === null ? undefined : { ...meta, headers: createHeaders(meta.headers), length }
  } catch {
    // Its checksum is right, so it was written like this: not by this package.
    return undefined
  }
}
