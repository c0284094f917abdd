import type { Readable } from 'node:stream'
import type { BodySink, BodySource, Flow } from '@proxy/pipeline'
import { S3Error } from './errors.ts'
import { decodeHead, FIXED_BYTES, headLength, type ObjectHead } from './frame.ts'

/**
 * The bytes of an object as they arrive. Read in two steps, first by `readHead`, then by whoever takes the blocks; between them, and while its reader pauses,
 * nothing is taken from the socket. Fails when it stays silent for `idleTimeoutMs` although bytes are wanted.
 */
export class IncomingObject implements BodySource, Flow {
  private readonly stream: Readable
  private readonly idleTimeoutMs: number
  private readonly onFailure: (error: S3Error) => void
  private sink: BodySink | undefined
  private rest: Buffer | undefined
  private ended = false
  private failure: S3Error | undefined
  private given = false
  private timer: NodeJS.Timeout | undefined

  /** `onFailure` hears of a body that broke off or fell silent. */
  constructor(stream: Readable, idleTimeoutMs: number, onFailure: (error: S3Error) => void) {
    this.stream = stream
    this.idleTimeoutMs = idleTimeoutMs
    this.onFailure = onFailure
    stream.on('error', () => this.fail(new S3Error('unreachable')))
    stream.on('close', () => this.fail(new S3Error('unreachable')))
    stream.on('end', () => this.end())
    stream.on('data', (chunk: Buffer) => this.take(chunk))
    stream.pause()
  }

  /** The head of the object; `broken` or `unknown` as of `headLength`. What follows it stays for `start`. Rejects with `S3Error`. */
  readHead(): Promise<ObjectHead | 'broken' | 'unknown'> {
    return new Promise((resolve, reject) => {
      let bytes: Buffer = Buffer.alloc(0)
      this.start({
        data: (chunk) => {
          bytes = bytes.byteLength === 0 ? Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength) : Buffer.concat([bytes, chunk])
          if (bytes.byteLength < FIXED_BYTES) return true
          const length = headLength(bytes)
          if (typeof length === 'number' && bytes.byteLength < length) return true
          this.detach(typeof length === 'number' ? bytes.subarray(length) : undefined)
          resolve(typeof length === 'number' ? (decodeHead(bytes.subarray(0, length)) ?? 'broken') : length)
          return false
        },
        end: () => resolve('broken'),
        error: reject
      })
    })
  }

  start(sink: BodySink): Flow {
    this.sink = sink
    const { rest } = this
    this.rest = undefined
    const more = rest === undefined || rest.byteLength === 0 || sink.data(rest)
    if (this.sink !== sink) return this
    if (this.failure !== undefined) this.fail(this.failure)
    else if (this.ended) this.end()
    else if (more) this.resume()
    return this
  }

  discard(): void {
    this.abort()
  }

  /** Lets the rest come and go, so that the connection can be used again: for a few bytes only. */
  drain(): void {
    this.start({ data: () => true, end() {}, error() {} })
  }

  resume(): void {
    if (this.settled()) return
    this.watch()
    this.stream.resume()
  }

  abort(): void {
    this.sink = undefined
    this.rest = undefined
    this.given = true
    this.unwatch()
    if (!this.ended) this.stream.destroy()
  }

  private settled(): boolean {
    return this.given || this.ended || this.failure !== undefined
  }

  private detach(rest: Buffer | undefined): void {
    this.sink = undefined
    this.rest = rest
    this.unwatch()
    this.stream.pause()
  }

  private take(chunk: Buffer): void {
    const { sink } = this
    if (sink === undefined) {
      // Nobody asked: a stream that was paused may still hand over what it held.
      if (!this.given) this.rest = this.rest === undefined ? chunk : Buffer.concat([this.rest, chunk])
      return
    }
    if (sink.data(chunk)) this.watch()
    else if (this.sink === sink) {
      this.unwatch()
      this.stream.pause()
    }
  }

  private end(): void {
    this.ended = true
    this.unwatch()
    const { sink } = this
    this.sink = undefined
    sink?.end()
  }

  private fail(error: S3Error): void {
    this.unwatch()
    if (this.given || this.ended) return
    if (this.failure === undefined) this.onFailure(error)
    this.failure ??= error
    const { sink } = this
    this.sink = undefined
    sink?.error(this.failure)
  }

  private watch(): void {
    if (this.settled()) return
    if (this.timer === undefined) this.timer = setTimeout(() => this.stall(), this.idleTimeoutMs)
    else this.timer.refresh()
  }

  private unwatch(): void {
    clearTimeout(this.timer)
    this.timer = undefined
  }

  private stall(): void {
    this.fail(new S3Error('timeout'))
    this.stream.destroy()
  }
}
