import { once } from 'node:events'
import { createServer, type IncomingMessage, request as send } from 'node:http'
import type { AddressInfo } from 'node:net'

/** What a gate answers instead of the server: `undefined` lets the request through. */
type Verdict = { status: number; code: string } | undefined

interface Gate {
  readonly endpoint: string
  /** Method and target of every request that came, passed on or not. */
  readonly seen: string[]
  decide: (request: IncomingMessage) => Verdict
  stop(): Promise<void>
}

/**
 * An HTTP proxy in front of a real S3 server that can answer in its place: for the answers that a real server cannot be told to give (503 SlowDown).
 * It passes the Host field on as it came, so signatures hold. What comes back from the server unfinished is reset.
 */
export async function startGate(target: { port: number }): Promise<Gate> {
  const seen: string[] = []
  const server = createServer((incoming, outgoing) => {
    seen.push(`${incoming.method} ${incoming.url}`)
    const verdict = gate.decide(incoming)
    if (verdict !== undefined) {
      incoming.resume()
      const body = `<?xml version="1.0"?><Error><Code>${verdict.code}</Code><Message>secret detail</Message><BucketName>cached-objects</BucketName></Error>`
      outgoing.writeHead(verdict.status, { 'content-type': 'application/xml', 'content-length': body.length })
      outgoing.end(body)
      return
    }
    const onward = send({ host: '127.0.0.1', port: target.port, method: incoming.method, path: incoming.url, headers: incoming.headers, agent: false }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.on('error', () => incoming.socket.resetAndDestroy())
      answer.pipe(outgoing)
    })
    onward.on('error', () => incoming.socket.resetAndDestroy())
    outgoing.on('close', () => onward.destroy())
    incoming.pipe(onward)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const gate: Gate = {
    endpoint: `http://127.0.0.1:${port}`,
    seen,
    decide: () => undefined,
    async stop() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    }
  }
  return gate
}
