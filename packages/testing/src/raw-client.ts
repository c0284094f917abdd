import { connect } from 'node:net'

export interface RawExchangeOptions {
  /** Default 127.0.0.1. */
  host?: string
  /** Stops collecting as soon as this occurs in what has arrived (text and patterns see it as latin1). Default: collect until the peer closes. */
  until?: string | RegExp | ((received: Buffer) => boolean)
  /** Half-closes after writing, as a client does that has nothing more to say. Default false. */
  end?: boolean
  /** Default 10000. */
  timeoutMs?: number
}

/** The exchange failed: refused, reset before the first byte, or out of time. */
export class RawExchangeError extends Error {
  /** What had arrived until then. */
  readonly received: Buffer

  constructor(message: string, received: Buffer, cause?: unknown) {
    super(`${message}; received ${JSON.stringify(received.toString('latin1', 0, 500))}`, { cause })
    this.name = 'RawExchangeError'
    this.received = received
  }
}

/**
 * Writes bytes as they are to a new connection and collects what comes back, until the peer closes or `until` matches; then ends the connection.
 * A reset after the first byte counts as a close, because a server may reset when it answered without reading everything.
 * Rejects with `RawExchangeError`.
 */
export function rawExchange(port: number, bytes: string | Uint8Array, options: RawExchangeOptions = {}): Promise<Buffer> {
  const { host = '127.0.0.1', end = false, timeoutMs = 10_000 } = options
  const matches = matcher(options.until)
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    // Joined only when somebody looks: joining at every chunk would copy everything again and again.
    const received = () => {
      if (chunks.length > 1) chunks.splice(0, chunks.length, Buffer.concat(chunks))
      return chunks[0] ?? Buffer.alloc(0)
    }
    // allowHalfOpen: the server may end its side first and still read ours
    const socket = connect({ port, host, allowHalfOpen: true })
    const timer = setTimeout(() => fail(`no end after ${timeoutMs} ms`), timeoutMs)
    const finish = () => {
      clearTimeout(timer)
      socket.destroy()
      resolve(received())
    }
    const fail = (message: string, cause?: unknown) => {
      clearTimeout(timer)
      socket.destroy()
      reject(new RawExchangeError(message, received(), cause))
    }
    socket.on('connect', () => {
      if (end) socket.end(bytes)
      else socket.write(bytes)
    })
    socket.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      if (matches?.(received())) finish()
    })
    socket.on('end', finish)
    socket.on('error', (error) => {
      if (chunks.length > 0) finish()
      else fail(error.message || error.name, error)
    })
  })
}

function matcher(until: RawExchangeOptions['until']): ((received: Buffer) => boolean) | undefined {
  if (until === undefined || typeof until === 'function') return until
  if (typeof until === 'string') return (received) => received.includes(until, 0, 'latin1')
  // A fresh search each time: a global or sticky pattern remembers where the last one ended.
  return (received) => received.toString('latin1').search(until) >= 0
}
