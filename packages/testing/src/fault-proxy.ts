import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { FaultLink } from './fault-link.ts'
import type { FaultMode } from './fault-mode.ts'
import { freePort } from './free-port.ts'

export interface FaultProxy {
  /** Of 127.0.0.1; the same in all modes. */
  readonly port: number
  /** Connections of clients that are open now. */
  readonly connections: number
  /** Holds for open connections and new ones at once; only for leaving `refuse` is the promise to be awaited: it resolves when the port listens again. */
  setMode(mode: FaultMode): Promise<void>
  /** Resets all connections and frees the port. */
  stop(): Promise<void>
}

/** Starts a TCP proxy on 127.0.0.1 in front of a real service (`host` default 127.0.0.1), in mode `pass`. A client is reset when the service cannot be reached. */
export async function startFaultProxy({ host = '127.0.0.1', port: targetPort }: { host?: string; port: number }): Promise<FaultProxy> {
  const port = await freePort()
  const links = new Set<FaultLink>()
  let mode: FaultMode = { kind: 'pass' }
  let server: Server | undefined = await listen(port, accept)
  let stopped = false

  function accept(client: Socket): void {
    if (mode.kind === 'reset' || mode.kind === 'refuse') {
      client.on('error', () => {}) // the client may be gone before us, which is what we want
      client.resetAndDestroy()
      return
    }
    const link = new FaultLink(client, connect({ host, port: targetPort, allowHalfOpen: true, noDelay: true }), mode)
    links.add(link)
    client.once('close', () => links.delete(link))
  }

  function resetAll(): void {
    for (const link of links) link.reset()
  }

  // Changes of the listener come one after another, so that quick changes of the mode cannot start two.
  let listening: Promise<void> = Promise.resolve()
  async function followMode(): Promise<void> {
    if (!server && mode.kind !== 'refuse' && !stopped) server = await listen(port, accept)
    // the mode may have changed meanwhile
    if (mode.kind === 'refuse' || stopped) unlisten()
  }

  function unlisten(): void {
    server?.close()
    server = undefined
  }

  return {
    port,
    get connections() {
      return links.size
    },
    setMode(next) {
      mode = next
      if (next.kind === 'refuse') unlisten()
      if (next.kind === 'refuse' || next.kind === 'reset') resetAll()
      else for (const link of links) link.setMode(next)
      listening = listening.then(followMode)
      return listening
    },
    async stop() {
      stopped = true
      unlisten()
      const closing = [...links].map((link) => link.closed)
      resetAll()
      await Promise.all([listening, ...closing])
    }
  }
}

async function listen(port: number, accept: (client: Socket) => void): Promise<Server> {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, accept)
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  return server
}
