import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { FaultLink } from '../src/fault-link.ts'

const sockets: Socket[] = []
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy()
})

/** Two ends of one connection. */
async function connection(): Promise<[Socket, Socket]> {
  const server = createServer({ allowHalfOpen: true })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const far = connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', allowHalfOpen: true })
  const [near] = (await once(server, 'connection')) as [Socket]
  server.close()
  far.on('error', () => {}) // the reset
  sockets.push(near, far)
  return [near, far]
}

// node:net never finishes the reset of a socket that was ended while it could not write (libuv refuses it): a link must not get into that state.
test('is reset although its client reads nothing and the answer has ended', async () => {
  const [client, reader] = await connection()
  const [service, writer] = await connection()
  reader.pause()
  while (client.writableLength === 0) {
    client.write(Buffer.alloc(16 * 1024))
    await turn()
  }
  const link = new FaultLink(client, service, { kind: 'pass' })
  writer.end()
  await once(service, 'end')
  expect(client.writableLength).toBeGreaterThan(0)
  expect(client.writableNeedDrain).toBe(false)
  link.reset()
  await link.closed
})
