import { type Body, type BodySink, type BodySource, type ByteRange, type Flow, type ProxyError, toProxyError, toSource } from '@proxy/pipeline'
import { wholeOf } from './checked-body.ts'
import { readerLost } from './errors.ts'
import type { CacheEntry, CacheStore } from './store.ts'
import { uniqueId } from './unique-id.ts'

/** Several ranges of one entry as multipart/byteranges (RFC 9110 section 14.6). One range is open at a time, and none is read before the one before it has been sent. */
export class MultipartBody implements BodySource, BodySink, Flow {
  readonly length: number
  readonly contentType: string
  private readonly store: CacheStore
  private readonly key: string
  private readonly entry: CacheEntry
  private readonly ranges: readonly ByteRange[]
  private readonly heads: readonly Buffer[]
  private readonly tail: Buffer
  private current: BodySource
  private index = 0
  private sink: BodySink | undefined
  private flow: Flow | undefined

  /** `first` is the body of the first range; the others are found again in the store. */
  constructor(store: CacheStore, key: string, entry: CacheEntry, ranges: readonly ByteRange[], first: Body, partType: string | undefined) {
    const boundary = uniqueId()
    const { length } = entry.meta
    this.store = store
    this.key = key
    this.entry = entry
    this.ranges = ranges
    this.current = toSource(first)
    this.contentType = `multipart/byteranges; boundary=${boundary}`
    const typed = partType === undefined ? '' : `content-type: ${partType}\r\n`
    this.heads = ranges.map(({ start, end }, i) => Buffer.from(`${i === 0 ? '' : '\r\n'}--${boundary}\r\n${typed}content-range: bytes ${start}-${end}/${length}\r\n\r\n`, 'latin1'))
    this.tail = Buffer.from(`\r\n--${boundary}--\r\n`, 'latin1')
    this.length = this.heads.reduce((sum, head, i) => sum + head.byteLength + sizeOf(ranges[i] as ByteRange), this.tail.byteLength)
  }

  start(sink: BodySink): Flow {
    this.sink = sink
    this.send()
    return this
  }

  discard(): void {
    this.current.discard()
  }

  data(chunk: Uint8Array): boolean {
    return this.sink?.data(chunk) ?? false
  }

  end(): void {
    this.flow = undefined
    this.index++
    if (this.index < this.ranges.length) void this.next()
    else {
      this.sink?.data(this.tail)
      this.finish()?.end()
    }
  }

  error(error: ProxyError): void {
    this.finish()?.error(error)
  }

  resume(): void {
    this.flow?.resume()
  }

  abort(): void {
    const { flow } = this
    this.finish()
    flow?.abort()
  }

  private send(): void {
    this.sink?.data(this.heads[this.index] as Buffer)
    const index = this.index
    const flow = this.current.start(this)
    // It may have ended, and the next one begun, before this returned.
    if (this.index === index && this.sink !== undefined) this.flow = flow
    else if (this.sink === undefined) flow.abort()
  }

  /** Never rejects: what goes wrong breaks the body off. */
  private async next(): Promise<void> {
    try {
      const range = this.ranges[this.index] as ByteRange
      const entry = await this.store.get(this.key, { body: range })
      const { id, length } = this.entry.meta
      // Something else may be stored there by now: bytes of two responses are not mixed.
      if (entry === undefined || length !== entry.meta.length || (id === undefined ? entry.version !== this.entry.version : entry.meta.id !== id)) {
        entry?.discard()
        throw readerLost()
      }
      const body = toSource(wholeOf(await entry.open(range), entry, range, this.store, this.key))
      if (this.sink === undefined) {
        body.discard()
        return
      }
      this.current = body
      this.send()
    } catch (error) {
      this.error(toProxyError(error))
    }
  }

  private finish(): BodySink | undefined {
    const { sink } = this
    this.sink = undefined
    this.flow = undefined
    return sink
  }
}

function sizeOf({ start, end }: ByteRange): number {
  return end - start + 1
}
