// The origin behind every proxy of the table: node:http, fixed bodies. `/hit/*` may be cached for an hour, so may `/slow/*`, which comes only when all clients of a wave have
// asked for it, `/stale/*` has to be confirmed each time, `/pass/*` may not be cached. Answers every message with the number of requests so far.
import http from 'node:http'
import { bytes, sizeOf, sizes } from './bodies.mjs'

const bodies = new Map(Object.values(sizes).map((size) => [size, bytes(size)]))
let requests = 0
const SLOW_MS = 20
const server = http.createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
  requests++
  const body = bodies.get(sizeOf(request.url))
  if (body === undefined) {
    response.writeHead(404, ['Content-Length', '0']).end()
    return
  }
  const slow = request.url.startsWith('/slow/')
  const control = slow || request.url.startsWith('/hit/') ? 'public, max-age=3600' : request.url.startsWith('/stale/') ? 'public, max-age=0' : 'no-store'
  if (request.headers['if-none-match'] === '"abc"') {
    response.writeHead(304, ['Cache-Control', control, 'ETag', '"abc"']).end()
    return
  }
  const answer = () => response.writeHead(200, ['Content-Type', 'image/jpeg', 'Content-Length', String(body.length), 'Cache-Control', control, 'ETag', '"abc"']).end(body)
  if (slow) setTimeout(answer, SLOW_MS)
  else answer()
})
process.on('message', () => process.send({ requests }))
server.listen(0, '127.0.0.1', () => process.send({ port: server.address().port }))
process.on('disconnect', () => process.exit())
