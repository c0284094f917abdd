import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Pattern, SLICE_BYTES, sizeOf } from './pattern.ts'

// The origin of these tests, a process of its own: what it costs is not the server's. It does what the test tells it by IPC, and reports each request.

/** How far answers to a path may go. Below 0: not even the header. `cut`: and there the connection is reset. */
export interface Limit {
  readonly path: string
  readonly bytes: number
  readonly cut?: boolean
}

export interface Report {
  readonly port?: number
  /** A request for this path has come. */
  readonly asked?: string
  /** The proxy has closed the connection of an answer before its end. */
  readonly left?: string
}

/** One answer on its way. */
class Sending {
  readonly path: string
  private readonly response: ServerResponse
  private readonly pattern: Pattern
  private readonly total: number
  private readonly declared: boolean
  private sent = 0
  private limit: Limit | undefined

  constructor(path: string, response: ServerResponse) {
    const { bytes, declared } = sizeOf(path)
    this.path = path
    this.response = response
    this.pattern = new Pattern(path)
    this.total = bytes
    this.declared = declared
    response.on('drain', () => this.go())
    response.on('close', () => {
      sendings.delete(this)
      if (!response.writableFinished && this.limit?.cut !== true) report({ left: path })
    })
  }

  /** Goes on as far as is allowed now. */
  upTo(limit: Limit): void {
    this.limit = limit
    this.go()
  }

  private go(): void {
    const { limit, response } = this
    if (limit === undefined || response.destroyed || response.writableEnded) return
    if (limit.bytes >= 0 && !response.headersSent) {
      response.writeHead(200, { 'content-type': 'image/png', 'cache-control': 'max-age=86400', ...(this.declared && { 'content-length': this.total }) })
      response.flushHeaders()
    }
    const end = Math.min(limit.bytes, this.total)
    while (this.sent < end) {
      if (response.writableNeedDrain) return
      const length = Math.min(SLICE_BYTES, end - this.sent)
      response.write(this.pattern.slice(this.sent, length))
      this.sent += length
    }
    if (limit.cut) this.cut()
    else if (this.sent === this.total && limit.bytes >= 0) response.end()
  }

  /** Once everything before it has left. */
  private cut(): void {
    const { response } = this
    const { socket } = response
    if (socket === null) return
    if (response.headersSent) response.write('', () => socket.resetAndDestroy())
    else socket.resetAndDestroy()
  }
}

const sendings = new Set<Sending>()
const limits = new Map<string, Limit>()

const server = createServer((request, response) => {
  const path = request.url ?? ''
  const sending = new Sending(path, response)
  sendings.add(sending)
  report({ asked: path })
  const limit = limits.get(path)
  // A cut is for those who have asked by then.
  sending.upTo(limit ?? { path, bytes: Number.MAX_SAFE_INTEGER })
})
server.keepAliveTimeout = 60_000

process.on('message', (limit: Limit) => {
  if (limit.cut) limits.delete(limit.path)
  else limits.set(limit.path, limit)
  for (const sending of sendings) if (sending.path === limit.path) sending.upTo(limit)
})
process.on('disconnect', () => process.exit())
server.listen(0, '127.0.0.1', () => report({ port: (server.address() as AddressInfo).port }))

function report(message: Report): void {
  if (process.connected) process.send?.(message)
}
