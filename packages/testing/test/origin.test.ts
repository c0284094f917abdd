import { once } from 'node:events'
import { connect } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { afterEach, expect, test } from 'vitest'
import { type Origin, startOrigin } from '../src/origin.ts'
import { rawExchange } from '../src/raw-client.ts'

const origins: Origin[] = []
const start = async (listener: Parameters<typeof startOrigin>[0]) => {
  const origin = await startOrigin(listener)
  origins.push(origin)
  return origin
}
afterEach(() => Promise.all(origins.splice(0).map((origin) => origin.close())))

test('records what arrived, as it was sent', async () => {
  const origin = await start(async (request, response) => {
    response.end(`got ${(await buffer(request)).length}`)
  })
  const answer = await rawExchange(origin.port, 'POST /a?b HTTP/1.1\r\nHost: x\r\nX-Two: 1\r\nx-two: 2\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello')
  expect(answer.toString()).toMatch(/got 5$/)
  expect(origin.requests).toHaveLength(1)
  expect(origin.requests[0]).toMatchObject({ method: 'POST', url: '/a?b', rawHeaders: ['Host', 'x', 'X-Two', '1', 'x-two', '2', 'Content-Length', '5', 'Connection', 'close'] })
  expect(origin.requests[0]?.body.toString()).toBe('hello')
})

test('records the body of a request that the listener never reads, and serves the next one on the same connection', async () => {
  const origin = await start((_request, response) => {
    response.end('ok')
  })
  const body = Buffer.alloc(300_000, 'x')
  for (const url of [origin.url, origin.url]) expect(await (await fetch(url, { method: 'PUT', body })).text()).toBe('ok')
  const second = await rawExchange(origin.port, `POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nonePOST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\ntwo`)
  expect(second.toString().match(/HTTP\/1.1 200/g)).toHaveLength(2)
  expect(origin.requests.map((request) => request.body.length)).toEqual([300_000, 300_000, 3, 3])
  expect(origin.requests[3]?.body.toString()).toBe('two')
})

test('lists a request before its body is there and does not read ahead of the listener', async () => {
  let arrived = () => {}
  const heard = new Promise<void>((resolve) => {
    arrived = resolve
  })
  let answer = () => {}
  const origin = await start((request, response) => {
    arrived()
    answer = () => request.pipe(response)
  })
  const size = 32 * 1024 * 1024
  const socket = connect(origin.port, '127.0.0.1')
  socket.write(`POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${size}\r\nConnection: close\r\n\r\n`)
  socket.write(Buffer.alloc(size))
  await heard
  expect(origin.requests).toHaveLength(1)
  expect(origin.requests[0]?.body.length).toBeLessThan(size / 2)
  expect(socket.writableLength).toBeGreaterThan(0)
  answer()
  let received = 0
  for await (const chunk of socket) received += (chunk as Buffer).length
  expect(received).toBeGreaterThanOrEqual(size)
  expect(origin.requests[0]?.body.length).toBe(size)
})

test('close ends open connections and may be called twice', async () => {
  const origin = await start(() => {})
  const socket = connect(origin.port, '127.0.0.1')
  socket.on('error', () => {}) // a reset is as good an end as a close
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
  await once(socket, 'connect')
  const closed = new Promise((resolve) => socket.once('close', resolve))
  await Promise.all([origin.close(), origin.close()])
  await closed
  await expect(rawExchange(origin.port, 'GET / HTTP/1.1\r\n\r\n')).rejects.toThrow(/ECONNREFUSED/)
})
