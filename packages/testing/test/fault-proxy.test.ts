import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type FaultProxy, startFaultProxy } from '../src/fault-proxy.ts'
import { freePort } from '../src/free-port.ts'
import { rawExchange } from '../src/raw-client.ts'

// An echo that says "bye" after the client's end, and sends n zeros for "send n\n".
let service: { port: number; sockets: Set<Socket>; stop(): void }
let proxy: FaultProxy

beforeEach(async () => {
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => {}) // resets are what the proxy is for
    socket.on('data', (chunk) => {
      const size = /^send (\d+)\n/.exec(chunk.toString())?.[1]
      socket.write(size ? Buffer.alloc(Number(size)) : chunk)
    })
    socket.on('end', () => socket.end('bye'))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  service = {
    port: (server.address() as AddressInfo).port,
    sockets,
    stop() {
      server.close()
      for (const socket of sockets) socket.destroy()
    }
  }
  proxy = await startFaultProxy({ port: service.port })
})
afterEach(async () => {
  await proxy.stop()
  service.stop()
})

/** An open connection to the proxy, with what it received and how it ended. */
async function open(port = proxy.port) {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  const client = {
    socket,
    received: 0,
    /** Resolves with the error code, or 'closed'. */
    ended: new Promise<string>((resolve) => {
      socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? ''))
      socket.once('close', () => resolve('closed'))
    }),
    async until(bytes: number) {
      while (client.received < bytes) await once(socket, 'data')
    }
  }
  socket.on('data', (chunk) => {
    client.received += chunk.length
  })
  await once(socket, 'connect')
  return client
}

test('pass: bytes in both directions, half-close and end', async () => {
  expect((await rawExchange(proxy.port, 'hello', { end: true })).toString()).toBe('hellobye')
  const megabytes = Buffer.alloc(8 * 1024 * 1024, 'x')
  expect((await rawExchange(proxy.port, megabytes, { end: true })).length).toBe(megabytes.length + 3)
  await expect.poll(() => [proxy.connections, service.sockets.size]).toEqual([0, 0])
})

test('counts open connections', async () => {
  const clients = [await open(), await open()]
  for (const client of clients) {
    client.socket.write('x')
    await client.until(1)
  }
  expect(proxy.connections).toBe(2)
})

test('backpressure: a client that does not read stops the service', async () => {
  const socket = connect(proxy.port, '127.0.0.1')
  socket.pause()
  const size = 64 * 1024 * 1024
  socket.write(`send ${size}\n`)
  // The service's own socket says when the kernel and the proxy hold all they can: its buffer stops shrinking.
  let before = -1
  await expect
    .poll(
      () => {
        const now = [...service.sockets][0]?.writableLength ?? -1
        const still = now > 0 && now === before
        before = now
        return still
      },
      { interval: 100, timeout: 20_000 }
    )
    .toBe(true)
  expect(before).toBeGreaterThan(size / 2)
  let received = 0
  for await (const chunk of socket) if ((received += (chunk as Buffer).length) === size) break
  expect(received).toBe(size)
})

test('refuse: open connections are reset, new ones refused, on the same port again afterwards', async () => {
  const client = await open()
  client.socket.write('x')
  await client.until(1)
  await proxy.setMode({ kind: 'refuse' })
  expect(await client.ended).toBe('ECONNRESET')
  await expect(rawExchange(proxy.port, 'x')).rejects.toThrow(/ECONNREFUSED/)
  expect(proxy.connections).toBe(0)
  await proxy.setMode({ kind: 'pass' })
  expect((await rawExchange(proxy.port, 'hello', { end: true })).toString()).toBe('hellobye')
})

test('quick changes of the mode end in the last one', async () => {
  const changes = [proxy.setMode({ kind: 'refuse' }), proxy.setMode({ kind: 'pass' }), proxy.setMode({ kind: 'refuse' })]
  await Promise.all(changes)
  await expect(rawExchange(proxy.port, 'x')).rejects.toThrow(/ECONNREFUSED/)
  await Promise.all([proxy.setMode({ kind: 'pass' }), proxy.setMode({ kind: 'refuse' }), proxy.setMode({ kind: 'pass' })])
  expect((await rawExchange(proxy.port, 'hello', { end: true })).toString()).toBe('hellobye')
})

test('freeze: nothing passes on old and new connections, all of it afterwards', async () => {
  const old = await open()
  old.socket.write('x')
  await old.until(1)
  await proxy.setMode({ kind: 'freeze' })
  const fresh = await open()
  old.socket.write('later')
  fresh.socket.write('later')
  await expect(rawExchange(proxy.port, 'x', { timeoutMs: 200 })).rejects.toThrow(/no end after 200 ms; received ""/)
  expect([old.received, fresh.received]).toEqual([1, 0])
  await proxy.setMode({ kind: 'pass' })
  await Promise.all([old.until(6), fresh.until(5)])
})

test('delay: answers come later and in order, at once when the mode changes', async () => {
  await proxy.setMode({ kind: 'delay', ms: 150 })
  const start = performance.now()
  expect((await rawExchange(proxy.port, 'hello', { end: true })).toString()).toBe('hellobye')
  expect(performance.now() - start).toBeGreaterThanOrEqual(150)
  await proxy.setMode({ kind: 'delay', ms: 600_000 })
  const client = await open()
  client.socket.write('x')
  await expect.poll(() => [...service.sockets].some((socket) => socket.bytesWritten === 1)).toBe(true)
  await proxy.setMode({ kind: 'pass' })
  await client.until(1)
})

test.each([0, 1, 100_000])('cutAfter %i bytes: exactly these, then a reset', async (bytes) => {
  await proxy.setMode({ kind: 'cutAfter', bytes })
  const client = await open()
  client.socket.write('send 1000000\n')
  expect(await client.ended).toBe('ECONNRESET')
  expect(client.received).toBe(bytes)
})

test('cutAfter on an open connection counts from the change on', async () => {
  const client = await open()
  client.socket.write('12345')
  await client.until(5)
  await proxy.setMode({ kind: 'cutAfter', bytes: 3 })
  client.socket.write('67890')
  expect(await client.ended).toBe('ECONNRESET')
  expect(client.received).toBe(8)
})

test('reset: open connections and new ones', async () => {
  const client = await open()
  client.socket.write('x')
  await client.until(1)
  await proxy.setMode({ kind: 'reset' })
  expect(await client.ended).toBe('ECONNRESET')
  await expect(rawExchange(proxy.port, 'x')).rejects.toThrow(/ECONNRESET|EPIPE/)
})

test('a service that is not there or goes away resets the client', async () => {
  const client = await open()
  client.socket.write('x')
  await client.until(1)
  for (const socket of service.sockets) socket.resetAndDestroy()
  expect(await client.ended).toBe('ECONNRESET')
  const orphan = await startFaultProxy({ port: await freePort() })
  await expect(rawExchange(orphan.port, 'x')).rejects.toThrow(/ECONNRESET|EPIPE/)
  await orphan.stop()
})

test('stop resets what is open and frees the port', async () => {
  const client = await open()
  client.socket.write('x')
  await client.until(1)
  await proxy.stop()
  expect(await client.ended).toBe('ECONNRESET')
  expect(proxy.connections).toBe(0)
  await expect(rawExchange(proxy.port, 'x')).rejects.toThrow(/ECONNREFUSED/)
})
