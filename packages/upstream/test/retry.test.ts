import { Readable } from 'node:stream'
import { createRequest, Exchange, type ProxyRequest, upstreamAttempts, WholeBody } from '@proxy/pipeline'
import { describe, expect, test } from 'vitest'
import { answering, failureOf, outcome, type RawConnection, type RawOrigin, rawOrigin, testUpstream, text } from './support.ts'

const ok = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'

/** What an origin does with the second request of a connection that had been idle. */
const ends = {
  'a reset': ({ socket }: RawConnection) => socket.resetAndDestroy(),
  'a close': ({ socket }: RawConnection) => socket.end()
}

/** Answers the first request of the first `dead` connections, then ends them at the second request; later connections are well. */
function dying(dead: number, end: (connection: RawConnection) => void): Promise<RawOrigin> {
  return rawOrigin((connection) => (connection.index < dead ? answering(ok, end)(connection) : answering(ok)(connection)))
}

const count = (origin: RawOrigin, method: string): number => origin.connections.reduce((sum, { received }) => sum + (received.match(new RegExp(`${method} /`, 'g'))?.length ?? 0), 0)

describe.each(Object.entries(ends))('%s of a connection that had been idle', (_name, end) => {
  test.each(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE'])('%s is sent again, once, on a new connection', async (method) => {
    const origin = await dying(1, end)
    const handler = testUpstream(origin, { connections: 1 })
    await outcome(handler(createRequest()))
    const exchange = new Exchange()
    const body = method === 'PUT' ? Buffer.from('x') : null
    expect(await outcome(handler(createRequest({ method, body, exchange })))).toMatch(/^200 (ok)?$/)
    expect(count(origin, method)).toBe(method === 'GET' ? 3 : 2)
    expect(origin.connections).toHaveLength(2)
    expect(exchange.get(upstreamAttempts)).toBe(2)
  })

  test('POST is not sent again', async () => {
    const origin = await dying(1, end)
    const handler = testUpstream(origin, { connections: 1 })
    await outcome(handler(createRequest()))
    expect(await failureOf(handler(createRequest({ method: 'POST', body: Buffer.from('x') })))).toMatchObject({ status: 502, code: 'UPSTREAM_CONNECTION_LOST', retryable: false })
    expect(count(origin, 'POST')).toBe(1)
  })

  test('neither is a streamed body', async () => {
    const origin = await dying(1, end)
    const handler = testUpstream(origin, { connections: 1 })
    await outcome(handler(createRequest()))
    expect(await failureOf(handler(createRequest({ method: 'PUT', body: Readable.from([Buffer.from('x')], { objectMode: false }) })))).toMatchObject({ status: 502, retryable: false })
    expect(count(origin, 'PUT')).toBe(1)
  })

  test('all idle connections may be dead: the second attempt goes on none of them', async () => {
    const origin = await dying(5, end)
    const handler = testUpstream(origin)
    await Promise.all(Array.from({ length: 5 }, () => outcome(handler(createRequest()))))
    expect(origin.connections).toHaveLength(5)
    await new Promise((resolve) => setImmediate(resolve))
    const exchange = new Exchange()
    expect(await outcome(handler(createRequest({ exchange })))).toBe('200 ok')
    expect(exchange.get(upstreamAttempts)).toBe(2)
    expect(origin.connections.map(({ received }) => received.match(/GET/g)?.length)).toEqual([2, 1, 1, 1, 1, 1])
    expect(await Promise.all(Array.from({ length: 5 }, () => outcome(handler(createRequest()))))).toEqual(['200 ok', '200 ok', '200 ok', '200 ok', '200 ok'])
  })

  test('never twice', async () => {
    const origin = await rawOrigin((connection) => (connection.index === 0 ? answering(ok, end)(connection) : answering(end)(connection)))
    const handler = testUpstream(origin, { connections: 1 })
    await outcome(handler(createRequest()))
    expect(await failureOf(handler(createRequest()))).toMatchObject({ code: 'UPSTREAM_CONNECTION_LOST', retryable: false })
    expect(origin.connections).toHaveLength(2)
  })

  test('not on a new connection: that it ended was the answer', async () => {
    const origin = await rawOrigin(answering(end))
    expect(await failureOf(testUpstream(origin)(createRequest()))).toMatchObject({ code: 'UPSTREAM_CONNECTION_LOST', retryable: false })
    expect(origin.connections).toHaveLength(1)
  })

  test('nor on one that was opened in place of an idle one', async () => {
    const origin = await rawOrigin((connection) => (connection.index === 0 ? answering(ok)(connection) : answering(end)(connection)))
    const handler = testUpstream(origin, { connections: 1 })
    await outcome(handler(createRequest()))
    origin.connections[0]?.socket.end()
    await origin.allClosed()
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(await failureOf(handler(createRequest()))).toMatchObject({ code: 'UPSTREAM_CONNECTION_LOST', retryable: false })
    expect(origin.connections).toHaveLength(2)
  })

  test.each(['H', 'HTTP/1.1 200 OK\r\ncontent-', 'HTTP/1.1 103 Early Hints\r\n\r\n', `${ok.slice(0, -1)}`])('not when something of the answer had come: %j', async (begin) => {
    const origin = await rawOrigin((connection) =>
      answering(ok, () => {
        // Apart, so that the reset does not overtake it.
        connection.socket.write(begin, () => setTimeout(() => end(connection), 20))
      })(connection)
    )
    const handler = testUpstream(origin, { connections: 1 })
    await outcome(handler(createRequest()))
    expect(await outcome(handler(createRequest()))).toMatch(/^502 UPSTREAM_(CONNECTION_LOST|INCOMPLETE)$/)
    expect(origin.connections).toHaveLength(1)
  })
})

test('a body in memory is sent again whole', async () => {
  const bodies: string[] = []
  const origin = await rawOrigin(async (connection) => {
    if (connection.index === 0) {
      await connection.until('\r\n\r\n')
      connection.socket.write(ok)
      await connection.until('hello world')
      bodies.push(connection.received.slice(-11))
      connection.socket.resetAndDestroy()
    } else {
      await connection.until('hello world')
      bodies.push(connection.received.slice(-11))
      connection.socket.write(ok)
    }
  })
  const handler = testUpstream(origin, { connections: 1 })
  await outcome(handler(createRequest()))
  expect(await outcome(handler(createRequest({ method: 'PUT', body: new WholeBody('hello world') })))).toBe('200 ok')
  expect(bodies).toEqual(['hello world', 'hello world'])
})

/** The reset arrives in the moment between the choice of the connection and the sending: nothing was sent, so even a POST may go again. */
test('a connection that dies before the request is on it costs nobody anything', async () => {
  const origin = await rawOrigin((connection) => answering(ok)(connection))
  const handler = testUpstream(origin, { connections: 1 })
  for (let round = 0; round < 5; round++) {
    await outcome(handler(createRequest()))
    await new Promise((resolve) => setImmediate(resolve))
    const socket = (origin.connections.at(-1) as RawConnection).socket
    socket.resetAndDestroy()
    // Let the reset reach the other socket of this process, but not its reader.
    const until = performance.now() + 5
    while (performance.now() < until);
    const body = round % 2 === 0 ? Buffer.from('x') : Readable.from([Buffer.from('x')], { objectMode: false })
    expect(await outcome(handler(createRequest({ method: 'POST', body })))).toBe('200 ok')
  }
  expect(count(origin, 'POST')).toBe(5)
})

test('an abort while it is being sent again is heard', async () => {
  const origin = await rawOrigin((connection) => (connection.index === 0 ? answering(ok, ends['a reset'])(connection) : undefined))
  const handler = testUpstream(origin, { connections: 1 })
  await outcome(handler(createRequest()))
  const controller = new AbortController()
  const request: ProxyRequest = createRequest({ signal: controller.signal })
  const failed = failureOf(handler(request))
  while (origin.connections.length < 2) await new Promise((resolve) => setImmediate(resolve))
  await origin.connections[1]?.until('\r\n\r\n')
  controller.abort()
  expect(await failed).toMatchObject({ code: 'CLIENT_ABORTED' })
  await origin.allClosed()
})

test('close ends what is being sent again', async () => {
  const origin = await rawOrigin((connection) => (connection.index === 0 ? answering(ok, ends['a reset'])(connection) : answering('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n')(connection)))
  const handler = testUpstream(origin, { connections: 1 })
  await outcome(handler(createRequest()))
  const { body } = await handler(createRequest())
  const failed = failureOf(text(body))
  await handler.close()
  expect(await failed).toMatchObject({ code: 'UPSTREAM_CLOSED' })
  await origin.allClosed()
})
