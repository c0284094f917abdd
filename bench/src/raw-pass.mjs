// The floor of a pass-through: node:http in front, a bare undici dispatch behind, bytes written as they come. No checks, no limits, no log.
import http from 'node:http'
import { Pool } from 'undici'

const pool = new Pool(process.argv[2], { connections: 256, pipelining: 1 })
const server = http.createServer((request, response) => {
  const headers = []
  for (let i = 0; i < request.rawHeaders.length; i += 2) if (!/^(host|connection)$/i.test(request.rawHeaders[i])) headers.push(request.rawHeaders[i], request.rawHeaders[i + 1])
  pool.dispatch(
    { path: request.url, method: request.method, headers, body: null },
    {
      onRequestStart() {},
      onResponseStart(controller, status, fields) {
        const lines = []
        for (const name in fields) if (name !== 'connection' && name !== 'keep-alive') lines.push(name, fields[name])
        response.writeHead(status, lines)
        response.on('drain', () => controller.resume())
      },
      onResponseData(controller, chunk) {
        if (!response.write(chunk)) controller.pause()
      },
      onResponseEnd() {
        response.end()
      },
      onResponseError() {
        response.destroy()
      }
    }
  )
})
server.listen(0, '127.0.0.1', () => process.send({ port: server.address().port }))
process.on('disconnect', () => process.exit())
