import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { onTestFinished } from 'vitest'

/**
 * `pass`: everything. `reset`: connections are accepted and reset. Otherwise each connection passes so many bytes towards the client from now on, and is then
 * silent for good, or cut.
 */
export type RelayMode = 'pass' | 'reset' | { readonly ending: 'silent' | 'cut'; readonly bytes: number }

export interface Relay {
  readonly port: number
  /** Connections that were made so far. */
  readonly accepted: number
  /** For connections that are open, too; those that have fallen silent stay so. */
  setMode(mode: RelayMode): void
}

/** A way to a service on this machine that counts who takes it, and can fail in the middle of an answer. Ended when the test has finished. */
export async function startRelay(port: number): Promise<Relay> {
  const sockets = new Set<Socket>()
  let mode: RelayMode = 'pass'
  /** Counts modes: bytes are counted anew in each. */
  let era = 0
  let accepted = 0
  const server = createServer((client) => {
    accepted++
    client.on('error', () => {}) // a client that leaves is no failure here
    if (mode === 'reset') {
      client.resetAndDestroy()
      return
    }
    const service = connect({ port, host: '127.0.0.1', noDelay: true })
    for (const socket of [client, service]) {
      sockets.add(socket)
      socket.once('close', () => {
        sockets.delete(socket)
        client.destroy()
        service.destroy()
      })
    }
    service.on('error', () => client.destroy())
    client.pipe(service)
    let [passed, counting, silent] = [0, era, false]
    service.on('data', (chunk: Buffer) => {
      if (silent) return
      if (counting !== era) [passed, counting] = [0, era]
      if (typeof mode === 'object' && passed + chunk.byteLength > mode.bytes) {
        const { ending } = mode
        silent = true
        client.write(chunk.subarray(0, mode.bytes - passed), () => ending === 'cut' && client.resetAndDestroy())
        return
      }
      passed += chunk.byteLength
      if (client.write(chunk)) return
      service.pause()
      client.once('drain', () => service.resume())
    })
    service.on('end', () => silent || client.end())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  return {
    port: (server.address() as AddressInfo).port,
    get accepted() {
      return accepted
    },
    setMode(next) {
      mode = next
      era++
      if (next === 'reset') for (const socket of sockets) socket.resetAndDestroy()
    }
  }
}
