import { once } from 'node:events'
import { setTimeout as control } from 'node:timers/promises'
import { type BodySource, Context, createRequest, Exchange, type Flow, target, upstreamResult } from '@proxy/pipeline'
import { startFaultProxy, startOrigin } from '@proxy/testing'
import { expect, onTestFinished, test } from 'vitest'
import { answering, closedPort, failureOf, outcome, rawOrigin, testUpstream, text } from './support.ts'

const ok = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'

test('refused: 502 at once, and it may go elsewhere', async () => {
  const exchange = new Exchange()
  const failure = await failureOf(testUpstream(`http://127.0.0.1:${await closedPort()}`)(createRequest({ method: 'POST', body: Buffer.from('x'), exchange })))
  expect(failure).toMatchObject({ status: 502, code: 'UPSTREAM_CONNECT_REFUSED', source: 'upstream', proxyStatus: 'connection_refused', retryable: true })
  expect(exchange.get(upstreamResult)).toBe('UPSTREAM_CONNECT_REFUSED')
})

test('refused at every address of a name', async () => {
  expect(await failureOf(testUpstream(`http://localhost:${await closedPort()}`)(createRequest()))).toMatchObject({ code: 'UPSTREAM_CONNECT_REFUSED', retryable: true })
})

test('a name that cannot be: 502', async () => {
  // Longer than DNS allows: nobody is asked.
  const failure = await failureOf(testUpstream(`http://${'a'.repeat(64)}.test`)(createRequest()))
  expect(failure).toMatchObject({ status: 502, code: 'UPSTREAM_DNS', proxyStatus: 'dns_error', retryable: true })
})

test('a reset before the answer: 502, and not to be sent again by others', async () => {
  const origin = await rawOrigin(answering(({ socket }) => socket.resetAndDestroy()))
  expect(await failureOf(testUpstream(origin)(createRequest()))).toMatchObject({ status: 502, code: 'UPSTREAM_CONNECTION_LOST', retryable: false })
  expect(origin.connections).toHaveLength(1)
})

test('back after an outage', async () => {
  const origin = await startOrigin((_request, response) => response.end('ok'))
  onTestFinished(() => origin.close())
  const proxy = await startFaultProxy(origin)
  onTestFinished(() => proxy.stop())
  const handler = testUpstream(`http://127.0.0.1:${proxy.port}`)
  expect(await outcome(handler(createRequest()))).toBe('200 ok')
  await proxy.setMode({ kind: 'refuse' })
  const failures = await Promise.all(Array.from({ length: 20 }, () => outcome(handler(createRequest()))))
  // One may have been on its way on the old connection.
  for (const failure of failures) expect(failure).toMatch(/^502 UPSTREAM_CONNECT(_REFUSED|ION_LOST)$/)
  await proxy.setMode({ kind: 'pass' })
  expect(await Promise.all(Array.from({ length: 20 }, () => outcome(handler(createRequest()))))).toEqual(Array.from({ length: 20 }, () => '200 ok'))
})

test('no connection in time: 504; TLS counts', async () => {
  // Accepts and never speaks TLS.
  const silent = await rawOrigin(() => {})
  // In the same run: undici's own timer would come after it.
  const later = control(450, 'later')
  const failed = failureOf(testUpstream(silent.url.replace('http:', 'https:'), { connectTimeoutMs: 50 })(createRequest()))
  expect(await Promise.race([failed.then(() => 'failed'), later])).toBe('failed')
  expect(await failed).toMatchObject({ status: 504, code: 'UPSTREAM_CONNECT_TIMEOUT', proxyStatus: 'connection_timeout', retryable: true })
  await silent.allClosed()
})

test('no header in time: 504, and the connection is not used again', async () => {
  const origin = await rawOrigin((connection) => answering(connection.index === 0 ? 'HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 O' : ok)(connection))
  const handler = testUpstream(origin, { headersTimeoutMs: 50, connections: 1 })
  const later = control(450, 'later')
  const failed = failureOf(handler(createRequest()))
  expect(await Promise.race([failed.then(() => 'failed'), later])).toBe('failed')
  expect(await failed).toMatchObject({ status: 504, code: 'UPSTREAM_HEADERS_TIMEOUT', proxyStatus: 'http_response_timeout', retryable: false })
  await origin.allClosed()
  expect(await outcome(handler(createRequest()))).toBe('200 ok')
})

test('interim answers and a header that drips do not put the deadline off', async () => {
  const origin = await rawOrigin(
    answering(({ socket }) => {
      socket.write('HTTP/1.1 102 Processing\r\n\r\n')
      let turn = 0
      const timer = setInterval(() => socket.write(turn++ % 2 === 0 ? 'HTTP/1.1 102 Processing\r\n' : '\r\n'), 10)
      socket.on('close', () => clearInterval(timer))
    })
  )
  expect(await outcome(testUpstream(origin, { headersTimeoutMs: 100 })(createRequest()))).toBe('504 UPSTREAM_HEADERS_TIMEOUT')
})

test('a body that stalls: 504 to its reader, and the connection is closed', async () => {
  const origin = await rawOrigin(answering('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello'))
  const exchange = new Exchange()
  const response = await testUpstream(origin, { bodyTimeoutMs: 50 })(createRequest({ exchange }))
  expect(exchange.get(upstreamResult)).toBe(200)
  const later = control(450, 'later')
  const failed = failureOf(text(response.body))
  expect(await Promise.race([failed.then(() => 'failed'), later])).toBe('failed')
  expect(await failed).toMatchObject({ status: 504, code: 'UPSTREAM_BODY_TIMEOUT', retryable: false })
  expect(exchange.get(upstreamResult)).toBe('UPSTREAM_BODY_TIMEOUT')
  await origin.allClosed()
})

test('a body that moves is given its time again and again', async () => {
  const origin = await rawOrigin(
    answering(({ socket }) => {
      socket.write('HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n')
      let sent = 0
      const timer = setInterval(() => {
        socket.write('x')
        if (++sent === 20) clearInterval(timer)
      }, 20)
    })
  )
  // 400 ms in all; only a pause of 300 would be too long.
  expect(await outcome(testUpstream(origin, { bodyTimeoutMs: 300 })(createRequest()))).toBe(`200 ${'x'.repeat(20)}`)
})

test('a reader that takes its time is not the fault of the origin', async () => {
  const size = 300_000
  const origin = await rawOrigin(answering(`HTTP/1.1 200 OK\r\ncontent-length: ${size}\r\n\r\n${'x'.repeat(size)}`))
  const { body } = await testUpstream(origin, { bodyTimeoutMs: 50 })(createRequest())
  let received = 0
  await new Promise<void>((resolve, reject) => {
    let flow: Flow | undefined
    flow = (body as BodySource).start({
      data: (chunk) => {
        received += chunk.byteLength
        // Twice the deadline.
        setTimeout(() => flow?.resume(), 100)
        return false
      },
      end: () => resolve(),
      error: reject
    })
  })
  expect(received).toBe(size)
})

test('nor is one that asks for a pause at once', async () => {
  const origin = await rawOrigin(answering('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello'))
  const { body } = await testUpstream(origin, { bodyTimeoutMs: 200 })(createRequest())
  while (origin.connections[0]?.socket.writableLength !== 0) await control(5)
  await control(50)
  let received = ''
  const ended = new Promise<void>((resolve, reject) => {
    const flow = (body as BodySource).start({
      data: (chunk) => {
        received += Buffer.from(chunk).toString()
        return received.length !== 5
      },
      end: () => resolve(),
      error: reject
    })
    expect(received).toBe('hello')
    setTimeout(() => {
      origin.connections[0]?.socket.write('world')
      flow.resume()
    }, 600)
  })
  await ended
  expect(received).toBe('helloworld')
})

test('0 switches the deadlines off', async () => {
  const origin = await rawOrigin(
    answering(({ socket }) => {
      setTimeout(() => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no'), 50)
      setTimeout(() => socket.write('k'), 100)
    })
  )
  expect(await outcome(testUpstream(origin, { connectTimeoutMs: 0, headersTimeoutMs: 0, bodyTimeoutMs: 0 })(createRequest()))).toBe('200 ok')
})

/** A pause of the process lets timers run before the sockets are read. */
test('what arrived while the process stood still was in time', async () => {
  const origin = await rawOrigin(answering(ok))
  const handler = testUpstream(origin, { headersTimeoutMs: 100, connections: 1 })
  await outcome(handler(createRequest()))
  const answer = outcome(handler(createRequest()))
  await origin.connections[0]?.until('GET / HTTP/1.1\r\n')
  while (!((origin.connections[0]?.received.match(/GET/g)?.length ?? 0) === 2)) await new Promise((resolve) => setImmediate(resolve))
  const until = performance.now() + 200
  while (performance.now() < until);
  expect(await answer).toBe('200 ok')
})

test('a reader that throws when it is told of a failure does not end the process', async () => {
  const origin = await rawOrigin(answering('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello'))
  const { body } = await testUpstream(origin)(createRequest())
  const warned = once(process, 'warning')
  ;(body as BodySource).start({
    data: () => true,
    end: () => {},
    error: () => {
      throw new Error('the reader is broken')
    }
  })
  origin.connections[0]?.socket.resetAndDestroy()
  expect(await warned).toMatchObject([{ message: 'the reader is broken' }])
})

test('close ends what is under way, and what comes after', async () => {
  const origin = await rawOrigin(answering(({ socket }) => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nx'), ok))
  const handler = testUpstream(origin, { connections: 2 })
  const silent = await rawOrigin(() => {})
  const waiting = testUpstream(silent)
  const broken = failureOf(text((await handler(createRequest())).body))
  const unanswered = failureOf(waiting(createRequest()))
  while (silent.connections.length === 0) await control(5)
  await Promise.all([handler.close(), waiting.close()])
  expect([await broken, await unanswered]).toMatchObject([{ code: 'UPSTREAM_CLOSED' }, { code: 'UPSTREAM_CLOSED', status: 503 }])
  expect(await failureOf(handler(createRequest()))).toMatchObject({ status: 503, code: 'UPSTREAM_CLOSED', source: 'proxy', retryable: false })
  await Promise.all([origin.allClosed(), silent.allClosed(), handler.close()])
})

test('nothing is opened after close', async () => {
  const origin = await rawOrigin(answering(ok))
  const handler = testUpstream(undefined)
  await handler.close()
  const context = Context.empty.with(target, { origin: origin.url, name: 'x' })
  expect(await failureOf(handler(createRequest({ context })))).toMatchObject({ code: 'UPSTREAM_CLOSED' })
  expect(origin.connections).toHaveLength(0)
})

test('an answer that takes longer than a connection may is waited for, on a connection that is kept as well', async () => {
  const connectTimeoutMs = 100
  const origin = await startOrigin((_request, response) => setTimeout(() => response.end('ok'), 4 * connectTimeoutMs))
  onTestFinished(() => origin.close())
  const handler = testUpstream(origin, { connectTimeoutMs, headersTimeoutMs: 10_000 })
  expect(await outcome(handler(createRequest()))).toBe('200 ok')
  await new Promise((resolve) => setImmediate(resolve))
  expect(await outcome(handler(createRequest()))).toBe('200 ok')
})
