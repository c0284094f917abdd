import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'

/** A request as it arrived. */
export interface RecordedRequest {
  readonly method: string
  readonly url: string
  /** Names and values in turn, as sent. */
  readonly rawHeaders: readonly string[]
  /** What has arrived of the body so far: all of it once the request is answered and read. */
  readonly body: Buffer
}

export interface Origin {
  /** Without a slash at the end: `http://127.0.0.1:PORT`. */
  readonly url: string
  readonly port: number
  /** In the order of arrival, listed as soon as the head of the request is there. */
  readonly requests: RecordedRequest[]
  /** Ends the server and every connection to it. Resolves when all are gone. */
  close(): Promise<void>
}

/** May be async: what it throws or rejects with is left unhandled and so fails the test. */
export type OriginListener = (request: IncomingMessage, response: ServerResponse) => unknown

/**
 * Starts an HTTP/1.1 origin on an ephemeral port of 127.0.0.1.
 * The listener may leave the request body unread: what arrives is recorded all the same, and its reading is neither sped up nor slowed down before the answer ends.
 */
export async function startOrigin(listener: OriginListener): Promise<Origin> {
  const requests: RecordedRequest[] = []
  const sockets = new Set<Socket>()
  const server = createServer((request, response) => {
    requests.push(record(request))
    readRestAtEnd(request, response)
    listener(request, response)
  })
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  let closed: Promise<unknown> | undefined
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    requests,
    async close() {
      if (!closed) {
        closed = once(server, 'close')
        server.close()
        for (const socket of sockets) socket.destroy()
      }
      await closed
    }
  }
}

/** Taps the parser's push: a 'data' listener would make the body flow before the origin's own listener asks for it. */
function record(request: IncomingMessage): RecordedRequest {
  const chunks: Buffer[] = []
  const push = request.push.bind(request)
  request.push = (chunk: Buffer | null, encoding?: BufferEncoding) => {
    if (chunk) chunks.push(chunk)
    return push(chunk, encoding)
  }
  return {
    method: request.method ?? '',
    url: request.url ?? '',
    rawHeaders: request.rawHeaders,
    get body() {
      return Buffer.concat(chunks)
    }
  }
}

/** node:http drops the body that nobody has begun to read when the answer is finished; reading it from there on lets it be recorded. */
function readRestAtEnd(request: IncomingMessage, response: ServerResponse): void {
  response.once('prefinish', () => {
    if (request.readableFlowing === null && !request.destroyed) request.resume()
  })
}
