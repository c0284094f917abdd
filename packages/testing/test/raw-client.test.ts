import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { freePort } from '../src/free-port.ts'
import { RawExchangeError, rawExchange } from '../src/raw-client.ts'

const ends: (() => void)[] = []
afterEach(() => {
  for (const end of ends.splice(0)) end()
})

async function serve(onConnection: (socket: Socket) => void): Promise<number> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => {}) // clients of these tests leave as they like
    ends.push(() => socket.destroy())
    onConnection(socket)
  })
  server.listen(0, '127.0.0.1')
  ends.push(() => server.close())
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

test('sends bytes as they are and collects until the peer closes', async () => {
  const port = await serve((socket) => socket.once('data', (chunk) => socket.end(Buffer.concat([Buffer.from(chunk), Buffer.from(chunk)]))))
  const bytes = Buffer.from([0, 255, 13, 10, 128])
  expect(await rawExchange(port, bytes)).toEqual(Buffer.concat([bytes, bytes]))
})

test.each([
  ['text', 'END'],
  ['pattern', /END$/g],
  ['function', (received: Buffer) => received.length === 6]
] as const)('stops when a %s matches across chunks', async (_name, until) => {
  const port = await serve((socket) => {
    socket.setNoDelay()
    socket.write('abcE')
    socket.once('data', () => socket.write('ND'))
  })
  const answer = rawExchange(port, 'x', { until })
  expect((await answer).toString()).toBe('abcEND')
})

test('half-closes when asked to', async () => {
  const port = await serve((socket) => {
    let size = 0
    socket.on('data', (chunk) => {
      size += chunk.length
    })
    socket.on('end', () => socket.end(`${size}`))
  })
  expect((await rawExchange(port, 'x'.repeat(10), { end: true })).toString()).toBe('10')
})

test('out of time: rejects and carries what had arrived', async () => {
  const port = await serve((socket) => socket.write('half'))
  const failure = await rawExchange(port, 'x', { timeoutMs: 100 }).catch((error: unknown) => error)
  expect(failure).toBeInstanceOf(RawExchangeError)
  expect((failure as RawExchangeError).received.toString()).toBe('half')
})

test('a reset rejects before the first byte and is a close after it', async () => {
  const mute = await serve((socket) => socket.once('data', () => socket.resetAndDestroy()))
  await expect(rawExchange(mute, 'x')).rejects.toThrow(/ECONNRESET/)
  const talking = await serve((socket) => socket.once('data', () => socket.write('abc', () => socket.resetAndDestroy())))
  expect((await rawExchange(talking, 'x')).toString()).toBe('abc')
})

test('rejects where nobody listens', async () => {
  await expect(rawExchange(await freePort(), 'x')).rejects.toThrow(/ECONNREFUSED/)
})
