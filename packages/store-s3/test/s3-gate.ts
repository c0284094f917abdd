import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse, request as send } from 'node:http'
import type { AddressInfo } from 'node:net'

/** What a gate answers instead of the server: `undefined` lets the request through. */
type Verdict = { status: number; code: string } | undefined

interface Gate {
  readonly endpoint: string
  /** Method and target of every request that came, passed on or not. */
  readonly seen: string[]
  decide: (request: IncomingMessage) => Verdict
  /** Requests under way at a time, at most. */
  most: number
  /** Holds the next request with this method back until `hold` is resolved; `held` resolves when it has come. */
  holdNext(method: string): { readonly hold: PromiseWithResolvers<void>; readonly held: Promise<void> }
  stop(): Promise<void>
}

/**
 * An HTTP proxy in front of a real S3 server that can answer in its place: for the answers that a real server cannot be told to give (503 SlowDown).
 * It passes the Host field on as it came, so signatures hold. What comes back from the server unfinished is reset.
 */
export async function startGate(target: { port: number }): Promise<Gate> {
  const seen: string[] = []
  let running = 0
  let holding: { method: string; hold: Promise<void>; came: () => void } | undefined
  const server = createServer((incoming, outgoing) => {
    gate.most = Math.max(gate.most, ++running)
    outgoing.once('close', () => running--)
    seen.push(`${incoming.method} ${incoming.url}`)
    const verdict = gate.decide(incoming)
    if (verdict !== undefined) {
      incoming.resume()
      const body = `<?xml version="1.0"?><Error><Code>${verdict.code}</Code><Message>secret detail</Message><BucketName>cached-objects</BucketName></Error>`
      outgoing.writeHead(verdict.status, { 'content-type': 'application/xml', 'content-length': body.length })
      outgoing.end(body)
      return
    }
    if (holding === undefined || holding.method !== incoming.method) {
      pass(incoming, outgoing)
      return
    }
    const { hold, came } = holding
    holding = undefined
    came()
    void hold.then(() => pass(incoming, outgoing))
  })
  const pass = (incoming: IncomingMessage, outgoing: ServerResponse): void => {
    const onward = send({ host: '127.0.0.1', port: target.port, method: incoming.method, path: incoming.url, headers: incoming.headers, agent: false }, (answer) => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.on('error', () => incoming.socket.resetAndDestroy())
      answer.pipe(outgoing)
    })
    onward.on('error', () => incoming.socket.resetAndDestroy())
    outgoing.on('close', () => onward.destroy())
    incoming.pipe(onward)
  }
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const gate: Gate = {
    endpoint: `http://127.0.0.1:${port}`,
    seen,
    decide: () => undefined,
    most: 0,
    holdNext(method) {
      const [hold, held] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
      holding = { method, hold: hold.promise, came: held.resolve }
      return { hold, held: held.promise }
    },
    async stop() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    }
  }
  return gate
}
