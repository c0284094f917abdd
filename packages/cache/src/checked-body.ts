import { type Body, type BodySink, type BodySource, type ByteRange, bodyLength, discardBody, type Flow, type HeaderMap, type ProxyError, toSource, WholeBody } from '@proxy/pipeline'
import { storedBodyBroken } from './errors.ts'
import type { CacheEntry, CacheStore } from './store.ts'

/** Bytes that an entry of `length` gives when it is opened with `range`. */
export function openedBytes(length: number, range: ByteRange | undefined): number {
  return range === undefined ? length : Math.min(range.end + 1, length) - range.start
}

/** Whether nothing of a body needs to be counted: it is here, with `length` bytes. Throws STORE_BODY_BROKEN, with the body given up, where its length is known and another one. */
function isHere(body: Body, length: number): boolean {
  const known = bodyLength(body)
  if (known !== undefined && known !== length) {
    discardBody(body)
    throw storedBodyBroken(`${known} bytes where there were ${length}`)
  }
  return body === null || body instanceof Uint8Array || body instanceof WholeBody || body instanceof CheckedBody
}

/**
 * A stored body as whoever reads it may rely on it: `length` bytes, or an error. Throws STORE_BODY_BROKEN where it is known at once that it has another length; a
 * stream is counted, and breaks off with that error. `onBroken` is told of the latter alone.
 */
export function checkedBody(body: Body, length: number, onBroken: () => void): Body {
  return isHere(body, length) ? body : new CheckedBody(toSource(body), length, onBroken)
}

/** The same for what `entry` gave when it was opened with `range`. One whose stream is broken is removed. */
export function wholeOf(body: Body, { meta, version }: CacheEntry, range: ByteRange | undefined, store: CacheStore, key: string): Body {
  const length = openedBytes(meta.length, range)
  if (isHere(body, length)) return body
  return checkedBody(body, length, () => void remove(store, key, version))
}

/** Never rejects, and never throws, whatever the store does. */
async function remove(store: CacheStore, key: string, version: string): Promise<void> {
  try {
    await store.delete(key, version)
  } catch {
    // Where it stays, its next reader is told the same.
  }
}

/** Counts what it hands on. */
class CheckedBody implements BodySource, BodySink, Flow {
  readonly length: number
  private readonly source: BodySource
  private readonly onBroken: () => void
  private sink: BodySink | undefined
  private flow: Flow | undefined
  private received = 0

  constructor(source: BodySource, length: number, onBroken: () => void) {
    this.source = source
    this.length = length
    this.onBroken = onBroken
  }

  start(sink: BodySink): Flow {
    this.sink = sink
    this.flow = this.source.start(this)
    // It may have turned out to be too much while it started.
    if (this.sink === undefined) this.flow.abort()
    return this
  }

  discard(): void {
    this.source.discard()
  }

  data(chunk: Uint8Array): boolean {
    this.received += chunk.byteLength
    if (this.received > this.length) {
      this.breakOff(`more than ${this.length} bytes`)
      this.flow?.abort()
    }
    return this.sink?.data(chunk) ?? false
  }

  end(trailers?: HeaderMap): void {
    if (this.received === this.length) this.finish()?.end(trailers)
    else this.breakOff(`${this.received} of ${this.length} bytes`)
  }

  error(error: ProxyError): void {
    this.finish()?.error(error)
  }

  resume(): void {
    this.flow?.resume()
  }

  abort(): void {
    this.finish()
    this.flow?.abort()
  }

  private breakOff(what: string): void {
    const sink = this.finish()
    if (sink === undefined) return
    this.onBroken()
    sink.error(storedBodyBroken(what))
  }

  private finish(): BodySink | undefined {
    const { sink } = this
    this.sink = undefined
    return sink
  }
}
