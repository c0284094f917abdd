import { Context, createRequest, target } from '@proxy/pipeline'
import { expect, test } from 'vitest'
import { type UpstreamOptions, upstream } from '../src/index.ts'
import { answering, failureOf, outcome, type RawConnection, rawOrigin, testUpstream } from './support.ts'

const ok = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

test.each([
  'example.org',
  'ftp://example.org',
  'http://example.org/path',
  'http://example.org?q',
  'http://example.org#f',
  'http://user:password@example.org',
  'http://exa mple.org',
  'http://example.org\\x',
  'http://',
  'http://example.org:99999',
  ''
])('no origin: %j', (origin) => {
  expect(() => upstream({ origin })).toThrow(TypeError)
})

test.each([
  { connectTimeoutMs: -1 },
  { headersTimeoutMs: 1.5 },
  { bodyTimeoutMs: Number.NaN },
  { bodyTimeoutMs: 2 ** 31 },
  { connections: 0 },
  { connections: Number.POSITIVE_INFINITY },
  { maxQueued: 0 },
  { maxOrigins: 0 },
  { keepAliveMs: 0 },
  { maxHeaderBytes: 0 },
  { maxHeaderBytes: '64KiB' as unknown as number }
] satisfies UpstreamOptions[])('out of range: %j', (options) => {
  expect(() => upstream(options)).toThrow(RangeError)
})

test.each([{ via: 'a, b' }, { via: '' }, { via: 'a b' }, { via: 'a\r\nb' }, { clientHeaders: 'some' as 'none' }])('what cannot be meant: %j', (options) => {
  expect(() => upstream(options)).toThrow(TypeError)
})

test('via may be a host and port', async () => {
  const origin = await rawOrigin(answering(ok))
  const { headers } = await testUpstream(origin, { via: 'proxy.example:8080' })(createRequest())
  expect(headers.via).toBe('1.1 proxy.example:8080')
  expect(origin.connections[0]?.received).toContain('via: 1.1 proxy.example:8080\r\n')
})

test('via false: none in either direction', async () => {
  const origin = await rawOrigin(answering(ok))
  const { headers } = await testUpstream(origin, { via: false })(createRequest())
  expect('via' in headers).toBe(false)
  expect(origin.connections[0]?.received).not.toContain('via')
})

test('no more connections than connections; the others wait and come in turn', async () => {
  let open = 0
  let most = 0
  const origin = await rawOrigin(
    answering(({ socket }) => {
      most = Math.max(most, ++open)
      setTimeout(() => {
        open--
        socket.write(ok)
      }, 10)
    })
  )
  const handler = testUpstream(origin, { connections: 3, connectTimeoutMs: 20_000 })
  expect(await Promise.all(Array.from({ length: 30 }, () => outcome(handler(createRequest()))))).toEqual(Array.from({ length: 30 }, () => '200 ok'))
  expect([most, origin.connections.length]).toEqual([3, 3])
})

test('who waits for a connection too long is told that all are in use: the origin is not to blame', async () => {
  const origin = await rawOrigin(() => {})
  const handler = testUpstream(origin, { connections: 1, connectTimeoutMs: 200, headersTimeoutMs: 10_000 })
  const first = failureOf(handler(createRequest()))
  while (origin.connections.length === 0) await turn()
  await origin.connections[0]?.until('\r\n\r\n')
  expect(await failureOf(handler(createRequest()))).toMatchObject({ status: 503, code: 'UPSTREAM_BUSY', source: 'proxy', proxyStatus: 'connection_limit_reached', retryable: true })
  origin.connections[0]?.socket.resetAndDestroy()
  expect(await first).toMatchObject({ code: 'UPSTREAM_CONNECTION_LOST' })
})

test('no more requests wait than maxQueued', async () => {
  const origin = await rawOrigin(() => {})
  const handler = testUpstream(origin, { connections: 1, maxQueued: 2, connectTimeoutMs: 20_000 })
  const first = outcome(handler(createRequest()))
  while (origin.connections.length === 0) await turn()
  const { socket, until } = origin.connections[0] as RawConnection
  await until('\r\n\r\n')
  const waiting = [outcome(handler(createRequest())), outcome(handler(createRequest()))]
  expect(await failureOf(handler(createRequest()))).toMatchObject({ status: 503, code: 'UPSTREAM_BUSY', retryable: true })
  answering(ok)(origin.connections[0] as RawConnection)
  socket.emit('more')
  expect(await Promise.all([first, ...waiting])).toEqual(['200 ok', '200 ok', '200 ok'])
  // Room again.
  expect(await outcome(handler(createRequest()))).toBe('200 ok')
})

/** Aborting it when its turn comes, as undici's own users do, would cost the connection. */
test('a request that was given up while it waited costs no connection', async () => {
  const origin = await rawOrigin(() => {})
  const handler = testUpstream(origin, { connections: 1, connectTimeoutMs: 20_000 })
  const first = outcome(handler(createRequest()))
  while (origin.connections.length === 0) await turn()
  await origin.connections[0]?.until('\r\n\r\n')
  const controller = new AbortController()
  const given = Array.from({ length: 10 }, () => failureOf(handler(createRequest({ target: '/given-up', signal: controller.signal }))))
  const last = outcome(handler(createRequest({ target: '/last' })))
  controller.abort()
  for (const failure of await Promise.all(given)) expect(failure.code).toBe('CLIENT_ABORTED')
  answering(ok)(origin.connections[0] as RawConnection)
  origin.connections[0]?.socket.emit('more')
  expect([await first, await last]).toEqual(['200 ok', '200 ok'])
  expect(origin.connections).toHaveLength(1)
  expect(origin.connections[0]?.received).not.toContain('given-up')
})

test('an idle connection is kept for keepAliveMs, or shorter where the origin says so', async () => {
  const keptFor = async (keepAliveMs: number, answer: string): Promise<number> => {
    const origin = await rawOrigin(answering(answer))
    await outcome(testUpstream(origin, { keepAliveMs })(createRequest()))
    const start = performance.now()
    await origin.allClosed()
    return performance.now() - start
  }
  const hint = (seconds: number): string => `HTTP/1.1 200 OK\r\ncontent-length: 2\r\nkeep-alive: timeout=${seconds}\r\n\r\nok`
  const [short, long, hinted, hintedAtOnce] = await Promise.all([keptFor(100, ok), keptFor(1_000, ok), keptFor(100, hint(600)), keptFor(20_000, hint(1))])
  expect(short).toBeGreaterThan(80)
  expect(short).toBeLessThan(long)
  expect(hinted).toBeLessThan(long)
  expect(long).toBeGreaterThan(900)
  expect(hintedAtOnce).toBeLessThan(2_000)
})

test('a header section larger than maxHeaderBytes is refused, a smaller one is not', async () => {
  const origin = await rawOrigin(answering(`HTTP/1.1 200 OK\r\nx-a: ${'a'.repeat(1_000)}\r\ncontent-length: 2\r\n\r\nok`))
  expect(await outcome(testUpstream(origin, { maxHeaderBytes: 900 })(createRequest()))).toBe('502 UPSTREAM_HEADERS_TOO_LARGE')
  expect(await outcome(testUpstream(origin, { maxHeaderBytes: 1_100 })(createRequest()))).toBe('200 ok')
})

test('beyond maxOrigins the connections of the origin known longest are given up, once what is under way has ended', async () => {
  const first = await rawOrigin(() => {})
  const others = await Promise.all([1, 2].map(() => rawOrigin(answering(ok))))
  const handler = testUpstream(undefined, { maxOrigins: 2 })
  const ask = (origin: { url: string }): Promise<string> => outcome(handler(createRequest({ context: Context.empty.with(target, { origin: origin.url, name: 'x' }) })))
  const slow = ask(first)
  while (first.connections.length === 0) await turn()
  await first.connections[0]?.until('\r\n\r\n')
  for (const other of others) expect(await ask(other)).toBe('200 ok')
  first.connections[0]?.socket.write(ok)
  expect(await slow).toBe('200 ok')
  await first.allClosed()
  expect(others.map(({ connections }) => connections[0]?.socket.destroyed)).toEqual([false, false])
})

test('close ends what is under way at an origin that was given up, too', async () => {
  const silent = await rawOrigin(() => {})
  const other = await rawOrigin(answering(ok))
  const handler = testUpstream(undefined, { maxOrigins: 1 })
  const ask = (origin: { url: string }): Promise<string> => outcome(handler(createRequest({ context: Context.empty.with(target, { origin: origin.url, name: 'x' }) })))
  const waiting = ask(silent)
  while (silent.connections.length === 0) await turn()
  await silent.connections[0]?.until('\r\n\r\n')
  expect(await ask(other)).toBe('200 ok')
  await handler.close()
  expect(await waiting).toBe('503 UPSTREAM_CLOSED')
  await Promise.all([silent.allClosed(), other.allClosed()])
})
