import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createHeaders, type Handler, readAll, WholeBody } from '../src/index.ts'
import type { RunningHost } from './adapter-suite.ts'

/** Starts a server on an ephemeral port of 127.0.0.1. */
export async function listen(server: Server): Promise<RunningHost> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    async close() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    }
  }
}

/** As `http.createServer` takes one, or with a promise as of node-server. */
export type Listener = (incoming: IncomingMessage, outgoing: ServerResponse) => unknown

export function serve(listener: Listener): Promise<RunningHost> {
  return listen(createServer((incoming, outgoing) => void listener(incoming, outgoing)))
}

/** Runs `use` with a server of its own that has `listener`. */
export async function onServer(listener: Listener, use: (port: number, server: Server) => Promise<void>): Promise<void> {
  const server = createServer((incoming, outgoing) => void listener(incoming, outgoing))
  const { port, close } = await listen(server)
  try {
    await use(port, server)
  } finally {
    await close()
  }
}

/** A handler that answers with what it was given, as JSON. */
export const mirror: Handler = async (request) => {
  const { method, target, authority, scheme, httpVersion, headers, remoteAddress, peerAddress } = request
  const body = request.body === null ? null : (await readAll(request.body, 1e6)).toString('latin1')
  return {
    status: 200,
    headers: createHeaders(),
    body: new WholeBody(JSON.stringify({ method, target, authority, scheme, httpVersion, headers: Object.entries(headers), remoteAddress, peerAddress, body }))
  }
}
