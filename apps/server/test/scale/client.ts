import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { onTestFinished } from 'vitest'
import { Pattern, sizeOf } from './pattern.ts'

/** All clients read into it, one at a time: what comes is checked at once and not kept. */
const shared = Buffer.alloc(256 * 1024)

/**
 * `idle`: nothing asked. `waiting`: no byte of a body yet. `reading`. `complete`: all bytes were right, and the message ended as it should.
 * `cut`: the connection was closed before, and what came was right. `wrong`: anything else.
 */
export type ClientState = 'idle' | 'waiting' | 'reading' | 'complete' | 'cut' | 'wrong'

/** One connection to the server that asks for one thing at a time and compares every byte with what it must be. Costs no memory and hardly any time. */
export class Client {
  private readonly socket: Socket
  private path = ''
  private pattern = new Pattern('')
  private head = ''
  private chunked = false
  private length: number | undefined
  /** Bytes left of the chunk that is being read; -1: its size line comes next; -2: the line break behind it. */
  private chunkLeft = -1
  private sizeLine = ''
  private last = false
  state: ClientState = 'idle'
  status = 0
  cacheStatus = ''
  /** Bytes of the body so far. */
  received = 0
  firstByteMs = 0
  /** Called after whatever came. */
  onProgress: (() => void) | undefined

  private constructor(port: number) {
    this.socket = connect({
      port,
      host: '127.0.0.1',
      onread: {
        buffer: shared,
        callback: (bytes: number) => {
          this.take(bytes)
          return true
        }
      }
    })
    this.socket.setNoDelay(true)
    this.socket.on('error', () => this.closed()) // a reset is one way to be cut
    this.socket.on('close', () => this.closed())
  }

  static async open(port: number): Promise<Client> {
    const client = new Client(port)
    onTestFinished(() => client.leave())
    await once(client.socket, 'connect')
    return client
  }

  ask(path: string): void {
    this.path = path
    this.pattern = new Pattern(path)
    this.head = ''
    this.chunked = false
    this.length = undefined
    this.chunkLeft = -1
    this.sizeLine = ''
    this.last = false
    this.received = 0
    this.firstByteMs = 0
    this.state = 'waiting'
    this.socket.write(`GET ${path} HTTP/1.1\r\nHost: scale.example\r\n\r\n`)
  }

  /** Stops reading: what is on its way fills the buffers of the two kernels, and then the server's. */
  pause(): void {
    this.socket.pause()
  }

  resume(): void {
    this.socket.resume()
  }

  leave(): void {
    this.socket.destroy()
  }

  private take(bytes: number): void {
    let at = 0
    if (this.state === 'waiting') {
      this.head += shared.toString('latin1', 0, Math.min(bytes, 4096))
      const end = this.head.indexOf('\r\n\r\n')
      if (end === -1) return
      at = bytes - (this.head.length - end - 4) - Math.max(0, bytes - 4096)
      this.begin(this.head.slice(0, end))
    }
    if (this.chunked) this.takeChunked(at, bytes)
    else this.takeBody(at, bytes)
    if (this.state === 'reading' && (this.chunked ? this.last : this.received === this.length)) this.state = 'complete'
    this.onProgress?.()
  }

  private begin(head: string): void {
    this.status = Number(head.slice(9, 12))
    this.cacheStatus = /^cache-status: (.*)$/im.exec(head)?.[1] ?? ''
    const length = /^content-length: (\d+)$/im.exec(head)?.[1]
    this.chunked = /^transfer-encoding: chunked$/im.test(head)
    this.length = length === undefined ? undefined : Number(length)
    const { bytes, declared } = sizeOf(this.path)
    const fits = this.status === 200 ? (declared ? this.length === bytes : this.chunked || this.length === bytes) : this.length !== undefined
    this.state = fits ? 'reading' : 'wrong'
  }

  private takeBody(start: number, end: number): void {
    if (this.state !== 'reading' || start >= end) return
    if (this.received === 0) this.firstByteMs = performance.now()
    if (this.status === 200 && !this.pattern.matches(this.received, shared, start, end)) this.state = 'wrong'
    this.received += end - start
    if (this.received > (this.length ?? sizeOf(this.path).bytes)) this.state = 'wrong'
  }

  private takeChunked(start: number, end: number): void {
    let at = start
    while (at < end && this.state === 'reading') {
      if (this.last) {
        // The line break behind the last chunk.
        at = end
      } else if (this.chunkLeft >= 0) {
        const stop = Math.min(end, at + this.chunkLeft)
        this.takeBody(at, stop)
        this.chunkLeft -= stop - at
        at = stop
        if (this.chunkLeft === 0) this.chunkLeft = -2
      } else {
        const byte = String.fromCharCode(shared[at++] as number)
        if (byte !== '\n') this.sizeLine += byte
        else if (this.chunkLeft === -2) {
          this.chunkLeft = -1
          this.sizeLine = ''
        } else {
          this.chunkLeft = Number.parseInt(this.sizeLine, 16)
          this.sizeLine = ''
          if (this.chunkLeft === 0) this.last = true
        }
      }
    }
    if (this.last && this.received !== sizeOf(this.path).bytes) this.state = 'wrong'
  }

  private closed(): void {
    if (this.state === 'waiting' || this.state === 'reading') this.state = 'cut'
    this.onProgress?.()
  }
}

/** So many connections, open and idle. */
export async function openClients(port: number, count: number): Promise<Client[]> {
  const clients: Client[] = []
  // No more at a time than a backlog takes.
  while (clients.length < count) clients.push(...(await Promise.all(Array.from({ length: Math.min(100, count - clients.length) }, () => Client.open(port)))))
  return clients
}

/** How many clients are in which state: `{ complete: 1000 }`. */
export function states(clients: readonly Client[]): Partial<Record<ClientState, number>> {
  const counts: Partial<Record<ClientState, number>> = {}
  for (const { state } of clients) counts[state] = (counts[state] ?? 0) + 1
  return counts
}
