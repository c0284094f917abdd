import { type BodySink, type BodySource, type Flow, type HeaderMap, type ProxyError, toProxyError } from '@proxy/pipeline'
import type { SharedBody } from './shared-body.ts'

/** How often a reader looks for another place to read on from without having got a byte from the last one. */
const MAX_TRIES = 4

/** One client's reading of a `SharedBody`: from its window, or, once it has fallen behind that, from where the bytes are kept. */
export class SharedReader implements BodySource, BodySink, Flow {
  readonly length: number | undefined
  private readonly body: SharedBody
  /** Number of the chunk to deliver next. */
  next = 0
  /** Bytes of that chunk that were delivered before. */
  private skip = 0
  /** Bytes delivered so far. */
  delivered = 0
  private sink: BodySink | undefined
  private paused = false
  private pumping = false
  /** `behind`: waits for its client to take more; `opening`: for the bytes to be stored. */
  private state: 'window' | 'behind' | 'opening' | 'following' | 'done' = 'window'
  private flow: Flow | undefined
  /** What `flow` is, or will be, the flow of. */
  private source: BodySource | undefined
  private failure: ProxyError | undefined
  /** Places that have failed since the last byte. */
  private tries = 0

  constructor(body: SharedBody, length: number | undefined) {
    this.body = body
    this.length = length
  }

  /** Lives on the window. */
  get onWindow(): boolean {
    return this.state === 'window'
  }

  /** Reads where the bytes are kept, behind the window or not far from its end. */
  get isFollowing(): boolean {
    return this.state === 'following'
  }

  /** Has had all there is, and would take more. */
  get hungry(): boolean {
    if (this.sink === undefined || this.paused) return false
    if (this.state === 'window') return this.next === this.body.nextChunk
    return this.state === 'opening' || (this.state === 'following' && this.delivered === this.body.received)
  }

  start(sink: BodySink): Flow {
    if (this.failure !== undefined) {
      sink.error(this.failure)
      return this
    }
    this.sink = sink
    this.resume()
    return this
  }

  discard(): void {
    this.abort()
  }

  resume(): void {
    this.paused = false
    if (this.state === 'window') this.pump()
    else if (this.state === 'following') this.flow?.resume()
    else if (this.state === 'behind' && this.sink !== undefined) this.follow()
    this.body.advance()
  }

  abort(): void {
    const { flow } = this
    if (this.state === 'done') return
    this.finish()
    flow?.abort()
  }

  /** Delivers from the window what has arrived, as far as the client takes it. */
  pump(): void {
    // A sink may resume from inside data(): the loop below goes on by itself then.
    if (this.pumping) return
    if (this.state === 'following' && !this.paused && this.flow !== undefined) this.catchUp()
    this.pumping = true
    while (this.state === 'window' && this.sink !== undefined && !this.paused) {
      const chunk = this.body.chunk(this.next)
      if (chunk === undefined) break
      const { skip } = this
      this.next++
      this.skip = 0
      this.delivered += chunk.byteLength - skip
      if (!this.sink.data(skip === 0 ? chunk : chunk.subarray(skip))) this.paused = true
    }
    this.pumping = false
    if (this.state === 'window' && this.sink !== undefined && this.body.state === 'ended' && this.next === this.body.nextChunk) this.end()
  }

  /** The window has moved on without this reader. */
  fallBehind(): void {
    this.state = 'behind'
    this.skip = 0
    this.flow = undefined
    if (this.sink !== undefined && !this.paused) this.follow()
  }

  private follow(): void {
    const source = this.body.following(this.delivered)
    if (source !== undefined) this.readOn(source)
    else {
      this.state = 'opening'
      void this.open()
    }
  }

  /** Goes back to the window, where that has what comes next. The caller pumps. */
  catchUp(): boolean {
    const place = this.body.place(this.delivered)
    if (place === undefined) return false
    const { flow } = this
    this.state = 'window'
    this.next = place.chunk
    this.skip = place.skip
    this.flow = undefined
    flow?.abort()
    return true
  }

  /** Never rejects: what goes wrong breaks the client's body off. */
  private async open(): Promise<void> {
    const { delivered } = this
    try {
      const source = await this.body.storedFrom(delivered)
      if (this.state === 'opening' && this.delivered === delivered) this.readOn(source)
      else source.discard()
    } catch (error) {
      if (this.state === 'opening' && this.delivered === delivered) this.failed(toProxyError(error))
    }
  }

  private readOn(source: BodySource): void {
    this.state = 'following'
    this.flow = undefined
    this.source = source
    const flow = source.start(this)
    // It may have ended, or failed and gone back to the window or to another place, while it started.
    if (this.state !== 'following' || this.source !== source) flow.abort()
    else {
      this.flow = flow
      if (!this.paused) flow.resume()
    }
  }

  data(chunk: Uint8Array): boolean {
    if (this.sink === undefined) return false
    this.delivered += chunk.byteLength
    this.tries = 0
    if (!this.sink.data(chunk)) {
      this.paused = true
      return false
    }
    this.body.passed(this.delivered)
    return true
  }

  end(trailers?: HeaderMap): void {
    this.finish()?.end(trailers)
  }

  /**
   * Where it read on has failed, which need not be the body's end: a write is given up, and what comes next is on the window, or one of several stores has, and
   * another one goes on.
   */
  error(error: ProxyError): void {
    if (this.state === 'done') return
    if (this.body.place(this.delivered) === undefined && this.body.isKept && ++this.tries < MAX_TRIES) this.fallBehind()
    else this.failed(error)
  }

  private failed(error: ProxyError): void {
    if (this.catchUp()) this.pump()
    else this.breakOff(error)
  }

  /** The body has broken off, or what this reader still needs of it is kept nowhere. */
  fail(error: ProxyError): void {
    const { flow } = this
    if (this.state !== 'done') this.breakOff(error)
    flow?.abort()
  }

  private breakOff(error: ProxyError): void {
    this.failure = error
    this.finish()?.error(error)
  }

  private finish(): BodySink | undefined {
    const { sink } = this
    this.state = 'done'
    this.sink = undefined
    this.source = undefined
    this.body.detach(this)
    return sink
  }
}
