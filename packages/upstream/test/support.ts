import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { type Body, createHeaders, type HeaderMap, isProxyError, type ProxyError, type ProxyResponse, readAll } from '@proxy/pipeline'
import { onTestFinished } from 'vitest'
import { type UpstreamHandler, type UpstreamOptions, upstream } from '../src/index.ts'

/** A connection to a raw origin. */
export interface RawConnection {
  /** 0 for the first one. */
  readonly index: number
  readonly socket: Socket
  /** What has arrived, as latin1. */
  readonly received: string
  /** Resolves when what has arrived contains `text`. */
  until(text: string): Promise<void>
}

export interface RawOrigin {
  readonly url: string
  readonly port: number
  readonly connections: RawConnection[]
  /** Resolves when all connections so far are closed. */
  allClosed(): Promise<void>
}

/** A TCP server on loopback that says exactly what it is told to. Ends with the test. */
export async function rawOrigin(onConnection: (connection: RawConnection) => void | Promise<void>): Promise<RawOrigin> {
  const connections: RawConnection[] = []
  const closed: Promise<unknown>[] = []
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    socket.on('error', () => {}) // what becomes of it is seen from the other side
    closed.push(new Promise((resolve) => socket.on('close', resolve)))
    let received = ''
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1')
      socket.emit('more')
    })
    socket.on('end', () => socket.end())
    const connection: RawConnection = {
      index: connections.length,
      socket,
      get received() {
        return received
      },
      until: async (text) => {
        while (!received.includes(text)) await once(socket, 'more')
      }
    }
    connections.push(connection)
    void Promise.resolve(onConnection(connection)).catch(() => {}) // waits for more of a connection that was closed
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.close()
    for (const { socket } of connections) socket.destroy()
  })
  const { port } = server.address() as AddressInfo
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    connections,
    allClosed: async () => {
      await Promise.all(closed)
    }
  }
}

/** A port that nobody listens on. */
export async function closedPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** Answers the n-th request of each connection (heads only, no bodies) with the n-th of `answers`, the last one again and again. */
export function answering(...answers: (string | Buffer | ((connection: RawConnection) => void))[]): (connection: RawConnection) => void {
  return (connection) => {
    let count = 0
    const { socket } = connection
    socket.on('more', () => {
      const requests = connection.received.split('\r\n\r\n').length - 1
      while (count < requests) {
        const answer = answers[Math.min(count, answers.length - 1)] as (typeof answers)[number]
        count++
        if (typeof answer === 'function') answer(connection)
        else if (typeof answer === 'string') socket.write(answer, 'latin1')
        else socket.write(answer)
      }
    })
  }
}

/** An upstream that is closed when the test ends. */
export function testUpstream(origin: string | { url: string } | undefined, options: UpstreamOptions = {}): UpstreamHandler {
  const handler = upstream(origin === undefined ? options : { origin: typeof origin === 'string' ? origin : origin.url, ...options })
  onTestFinished(() => handler.close())
  return handler
}

export function fields(init: Record<string, string | string[]>): HeaderMap {
  const headers = createHeaders()
  for (const [name, value] of Object.entries(init)) headers[name] = value
  return headers
}

export async function text(body: Body): Promise<string> {
  return (await readAll(body, 100_000_000)).toString('latin1')
}

/** Status, code and retryability of what a promise is rejected with. */
export async function failureOf(promise: Promise<unknown>): Promise<ProxyError> {
  try {
    await promise
  } catch (error) {
    if (isProxyError(error)) return error
    throw error
  }
  throw new Error('it did not fail')
}

/** What a client would see: an answer with its whole body, or the error that the answer or its body ended in. */
export async function outcome(response: Promise<ProxyResponse>): Promise<string> {
  try {
    const { status, body } = await response
    return `${status} ${await text(body)}`
  } catch (error) {
    return isProxyError(error) ? `${error.status} ${error.code}` : String(error)
  }
}
