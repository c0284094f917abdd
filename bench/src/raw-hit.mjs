// The floor of a memory hit: raw node:http, one writeHead and one end(buffer) with the fields that our hit has.
import http from 'node:http'
import { bytes, sizes } from './bodies.mjs'

const answers = new Map(
  Object.entries(sizes).map(([name, size]) => {
    const fields = [
      'content-type',
      'image/jpeg',
      'cache-control',
      'public, max-age=3600',
      'etag',
      '"abc"',
      'date',
      new Date().toUTCString(),
      'via',
      '1.1 proxy',
      'content-length',
      String(size),
      'age',
      '10',
      'cache-status',
      'proxy; hit; ttl=3590',
      'x-request-id',
      '0123456789abcdef0'
    ]
    return [`/hit/${name}`, { fields, body: bytes(size) }]
  })
)
const server = http.createServer((request, response) => {
  const answer = answers.get(request.url)
  response.writeHead(200, answer.fields)
  response.end(answer.body)
})
server.listen(0, '127.0.0.1', () => process.send({ port: server.address().port }))
process.on('disconnect', () => process.exit())
