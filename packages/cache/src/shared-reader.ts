import { type BodySink, type BodySource, type Flow, type HeaderMap, type ProxyError, toProxyError } from '@proxy/pipeline'
import type { SharedBody } from './shared-body.ts'

/** One client's reading of a `SharedBody`: from its window, or, once it has fallen behind that, from where the bytes are kept. */
export class SharedReader implements BodySource, BodySink, Flow {
  readonly length: number | undefined
  private readonly body: SharedBody
  /** Number of the chunk to deliver next. */
  next = 0
  private delivered = 0
  private sink: BodySink | undefined
  private paused = false
  private pumping = false
  private state: 'window' | 'behind' | 'opening' | 'following' | 'done' = 'window'
  private following: Flow | undefined

  constructor(body: SharedBody, length: number | undefined) {
    this.body = body
    this.length = length
  }

  /** Has had all there is, and would take more. */
  get hungry(): boolean {
    return this.sink !== undefined && !this.paused && this.next === this.body.nextChunk
  }

  start(sink: BodySink): Flow {
    this.sink = sink
    this.resume()
    return this
  }

  discard(): void {
    this.abort()
  }

  resume(): void {
    this.paused = false
    if (this.state === 'following') this.following?.resume()
    else if (this.state === 'behind') void this.follow()
    else if (this.state === 'window') {
      this.pump()
      this.body.advance()
    }
  }

  abort(): void {
    if (this.state === 'done') return
    this.state = 'done'
    this.sink = undefined
    this.following?.abort()
    this.body.detach(this)
  }

  /** Delivers from the window what has arrived, as far as the client takes it. */
  pump(): void {
    // A sink may resume from inside data(): the loop below goes on by itself then.
    if (this.pumping || this.state !== 'window') return
    const { body } = this
    this.pumping = true
    while (this.sink !== undefined && !this.paused && body.state !== 'failed') {
      const chunk = body.chunk(this.next)
      if (chunk === undefined) break
      this.next++
      this.delivered += chunk.byteLength
      if (!this.sink.data(chunk)) this.paused = true
    }
    this.pumping = false
    if (this.sink === undefined || body.state === 'open') return
    if (body.state === 'failed') this.error(body.failure as ProxyError)
    else if (this.next === body.nextChunk) this.end()
  }

  /** The window has moved on without this reader. */
  fallBehind(): void {
    this.state = 'behind'
    if (this.sink !== undefined && !this.paused) void this.follow()
  }

  /** Never rejects: what goes wrong breaks the client's body off. */
  private async follow(): Promise<void> {
    this.state = 'opening'
    try {
      const source = await this.body.rest(this.delivered)
      if (this.hasLeft()) source.discard()
      else {
        this.state = 'following'
        this.following = source.start(this)
        if (this.hasLeft()) this.following.abort()
      }
    } catch (error) {
      this.error(toProxyError(error))
    }
  }

  private hasLeft(): boolean {
    return this.sink === undefined
  }

  data(chunk: Uint8Array): boolean {
    this.delivered += chunk.byteLength
    return this.sink === undefined ? false : this.sink.data(chunk)
  }

  end(trailers?: HeaderMap): void {
    const sink = this.finish()
    sink?.end(trailers)
  }

  error(error: ProxyError): void {
    const sink = this.finish()
    sink?.error(error)
  }

  private finish(): BodySink | undefined {
    const { sink } = this
    this.state = 'done'
    this.sink = undefined
    this.body.detach(this)
    return sink
  }
}
