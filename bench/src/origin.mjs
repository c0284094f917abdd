// The origin behind every proxy of the table: node:http, fixed bodies. `/hit/*` may be cached for an hour, `/stale/*` has to be confirmed each time, `/pass/*` may not be cached.
import http from 'node:http'
import { bytes, sizeOf, sizes } from './bodies.mjs'

const bodies = new Map(Object.values(sizes).map((size) => [size, bytes(size)]))
const server = http.createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
  const body = bodies.get(sizeOf(request.url))
  if (body === undefined) {
    response.writeHead(404, ['Content-Length', '0']).end()
    return
  }
  const control = request.url.startsWith('/hit/') ? 'public, max-age=3600' : request.url.startsWith('/stale/') ? 'public, max-age=0' : 'no-store'
  if (request.headers['if-none-match'] === '"abc"') {
    response.writeHead(304, ['Cache-Control', control, 'ETag', '"abc"']).end()
    return
  }
  response.writeHead(200, ['Content-Type', 'image/jpeg', 'Content-Length', String(body.length), 'Cache-Control', control, 'ETag', '"abc"']).end(body)
})
server.listen(0, '127.0.0.1', () => process.send({ port: server.address().port }))
process.on('disconnect', () => process.exit())
