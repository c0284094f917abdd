import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'

/** Something to proxy: images from a folder and a little JSON. */
export interface SampleOrigin {
  readonly url: string
  /** Closes it at once, connections too. */
  stop(): Promise<void>
}

/** How long `/api/slow` takes. */
const SLOW_MS = 2000

/**
 * `GET /images/NAME.png` (fresh for an hour, with ETag and Last-Modified), `/api/time` (fresh for 5 s), `/api/slow` (2 s to answer, fresh for 30 s);
 * `POST /stop` ends it.
 */
export async function startSampleOrigin(folder: string, port = 0): Promise<SampleOrigin> {
  const server = createServer((incoming, outgoing) => {
    answer(incoming, outgoing, folder, () => void stop()).catch(() => {
      if (outgoing.headersSent) outgoing.destroy()
      else outgoing.writeHead(500).end()
    })
  })
  const closed = new Promise<void>((resolve) => server.once('close', resolve))
  const stop = (): Promise<void> => {
    server.close()
    // After the answer to whoever asked for it has left.
    setImmediate(() => server.closeAllConnections())
    return closed
  }
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', resolve)
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, stop }
}

async function answer(incoming: IncomingMessage, outgoing: ServerResponse, folder: string, stop: () => void): Promise<void> {
  const path = (incoming.url ?? '/').split('?', 1)[0] as string
  const image = /^\/images\/([a-z]+\.png)$/.exec(path)?.[1]
  if (incoming.method === 'POST' && path === '/stop') {
    outgoing.once('finish', stop)
    json(outgoing, 200, { status: 'stopped' })
  } else if (incoming.method !== 'GET' && incoming.method !== 'HEAD') json(outgoing, 405, { error: 'method not allowed' })
  else if (image !== undefined) await sendImage(incoming, outgoing, join(folder, image))
  else if (path === '/api/time') json(outgoing, 200, { time: new Date().toISOString() }, 'public, max-age=5')
  else if (path === '/api/slow') {
    await new Promise((resolve) => setTimeout(resolve, SLOW_MS))
    json(outgoing, 200, { time: new Date().toISOString(), tookMs: SLOW_MS }, 'public, max-age=30')
  } else if (path === '/') json(outgoing, 200, { images: ['/images/small.png', '/images/sky.png', '/images/large.png'], api: ['/api/time', '/api/slow'] }, 'public, max-age=60')
  else json(outgoing, 404, { error: 'not found' })
}

function json(outgoing: ServerResponse, status: number, value: object, cacheControl = 'no-store'): void {
  const body = `${JSON.stringify(value)}\n`
  outgoing.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body), 'cache-control': cacheControl }).end(body)
}

async function sendImage(incoming: IncomingMessage, outgoing: ServerResponse, file: string): Promise<void> {
  // A file that is not there, or cannot be looked at, is answered 404: the sample has nothing else to say about it.
  const found = await stat(file).catch(() => undefined)
  if (found === undefined) {
    json(outgoing, 404, { error: 'not found' })
    return
  }
  const headers = {
    'content-type': 'image/png',
    'cache-control': 'public, max-age=3600',
    etag: `"${found.size.toString(36)}-${Math.floor(found.mtimeMs).toString(36)}"`,
    'last-modified': found.mtime.toUTCString()
  }
  if (incoming.headers['if-none-match'] === headers.etag) outgoing.writeHead(304, headers).end()
  else {
    outgoing.writeHead(200, { ...headers, 'content-length': found.size })
    if (incoming.method === 'HEAD') outgoing.end()
    else await pipeline(createReadStream(file), outgoing)
  }
}
