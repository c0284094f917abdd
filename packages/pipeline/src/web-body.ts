import { badLength } from './answer-head.ts'
import { toSource } from './body.ts'
import { clientAborted, ProxyError } from './errors.ts'
import type { Body, BodySink, BodySource, Flow } from './types.ts'

/** The body of a web Request as a source. Not touched before it is started: a stream that is locked and left has to be cancelled. */
export class WebUpload implements BodySource {
  readonly length: number | undefined
  private readonly stream: ReadableStream<Uint8Array>

  constructor(stream: ReadableStream<Uint8Array>, contentLength: string | string[] | undefined) {
    this.stream = stream
    this.length = typeof contentLength === 'string' && /^\d+$/.test(contentLength) ? Number(contentLength) : undefined
  }

  start(sink: BodySink): Flow {
    if (this.stream.locked) {
      sink.error(new ProxyError('the request body was read before', { code: 'REQUEST_BODY_USED', status: 500, source: 'proxy', proxyStatus: 'proxy_internal_error' }))
      return { resume() {}, abort() {} }
    }
    const reader = this.stream.getReader()
    let done = false
    let reading = false
    const read = (): void => {
      reading = true
      reader.read().then(
        (result) => {
          reading = false
          if (done) return
          if (result.done) {
            done = true
            sink.end()
          } else if (sink.data(result.value)) read()
        },
        (cause: unknown) => {
          if (done) return
          done = true
          sink.error(clientAborted(cause))
        }
      )
    }
    read()
    return {
      resume: () => {
        if (!done && !reading) read()
      },
      abort: () => {
        if (done) return
        done = true
        reader.cancel().catch(ignore)
      }
    }
  }

  discard(): void {
    if (!this.stream.locked) this.stream.cancel().catch(ignore)
  }
}

// What was given up may have been broken already; nobody is left to be told.
function ignore(): void {}

/** Bytes that wait in a web stream for its reader. */
const windowBytes = 64 * 1024

/**
 * A body as a web stream. Started at once, so that a body which breaks off while it starts throws here, where the answer can still say so.
 * `promised` is what Content-Length says; a body of another length ends in an error.
 */
export function toWebStream(body: Body, promised: number | undefined): ReadableStream<Uint8Array> {
  const download = new WebDownload(promised)
  const stream = new ReadableStream<Uint8Array>(
    {
      start(controller) {
        download.controller = controller
        download.flow = toSource(body).start(download)
      },
      pull: () => download.flow?.resume(),
      cancel: () => {
        download.finished = true
        download.flow?.abort()
      }
    },
    { highWaterMark: windowBytes, size: (chunk) => chunk?.byteLength ?? 0 }
  )
  if (download.failure !== undefined) throw download.failure
  return stream
}

class WebDownload implements BodySink {
  controller: ReadableStreamDefaultController<Uint8Array> | undefined
  flow: Flow | undefined
  finished = false
  failure: ProxyError | undefined
  private received = 0
  private readonly promised: number | undefined

  constructor(promised: number | undefined) {
    this.promised = promised
  }

  data(chunk: Uint8Array): boolean {
    if (this.finished || chunk.byteLength === 0) return !this.finished
    this.received += chunk.byteLength
    if (this.promised !== undefined && this.received > this.promised) {
      this.error(badLength(this.received, this.promised))
      this.flow?.abort()
      return false
    }
    this.controller?.enqueue(chunk)
    return (this.controller?.desiredSize ?? 0) > 0
  }

  /** Trailers cannot be expressed. */
  end(): void {
    if (this.finished) return
    if (this.promised !== undefined && this.received !== this.promised) {
      this.error(badLength(this.received, this.promised))
      return
    }
    this.finished = true
    this.controller?.close()
  }

  error(failure: ProxyError): void {
    if (this.finished) return
    this.finished = true
    this.failure = failure
    // Hosts print what they are given here, some into the answer: the story stays in the cause.
    this.controller?.error(new TypeError('the body broke off', { cause: failure }))
  }
}
