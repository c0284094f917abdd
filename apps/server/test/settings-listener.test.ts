import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { Agent, get as httpsGet } from 'node:https'
import { connect, type Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import { rawExchange, startOrigin } from '@proxy/testing'
import { expect, onTestFinished, test } from 'vitest'
import { ask, startProxy, until } from './helpers.ts'

const fixture = (name: string): string => fileURLToPath(new URL(`./fixtures/${name}`, import.meta.url))

async function proxied(config: object, listener: Parameters<typeof startOrigin>[0] = (_, response) => response.end('ok')) {
  const origin = await startOrigin(listener)
  onTestFinished(() => origin.close())
  const proxy = await startProxy({ pools: { web: { targets: [origin.url] } }, ...config })
  return { origin, proxy, port: Number(new URL(proxy.url).port) }
}

/** Connects, and closes when the test has finished. */
async function open(port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1' })
  onTestFinished(() => {
    socket.destroy()
  })
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}

test('listeners: several, each its own address', async () => {
  const { proxy } = await proxied({ listeners: [{ port: 0 }, { host: 'localhost', port: 0 }] })
  expect(proxy.server.urls).toHaveLength(2)
  for (const url of proxy.server.urls) expect((await ask(url)).text).toBe('ok')
})

test('listeners[].tls: HTTPS with the given certificate', async () => {
  const { proxy, origin } = await proxied({ listeners: [{ port: 0, tls: { cert: fixture('cert.pem'), key: fixture('key.pem') } }] })
  expect(proxy.url).toMatch(/^https:/)
  const agent = new Agent({ ca: readFileSync(fixture('cert.pem')), keepAlive: true })
  onTestFinished(() => agent.destroy())
  const status = await new Promise((resolve, reject) => {
    httpsGet(proxy.url, { agent }, (incoming) => {
      incoming.resume()
      incoming.on('end', () => resolve(incoming.statusCode))
    }).on('error', reject)
  })
  expect(status).toBe(200)
  expect(origin.requests[0]?.rawHeaders.join('\n').toLowerCase()).toContain('x-forwarded-proto\nhttps')
  // An idle TLS connection does not hold up the end.
  const startedMs = performance.now()
  expect(await proxy.server.close(30_000)).toBe(0)
  expect(performance.now() - startedMs).toBeLessThan(10_000)
})

test('listeners[].maxConnections: the next one is closed at once', async () => {
  const { port } = await proxied({ listeners: [{ port: 0, maxConnections: 2 }] })
  const [first, second] = [await open(port), await open(port)]
  const third = await open(port)
  await once(third, 'close')
  expect([first.closed, second.closed]).toEqual([false, false])
})

test('listeners[].maxHeaderSize: 431 beyond it', async () => {
  const { port } = await proxied({ listeners: [{ port: 0, maxHeaderSize: '2KiB' }] })
  const message = (bytes: number): string => `GET / HTTP/1.1\r\nHost: h\r\nX: ${'x'.repeat(bytes)}\r\nConnection: close\r\n\r\n`
  expect((await rawExchange(port, message(1500))).toString('latin1')).toMatch(/^HTTP\/1\.1 200 /)
  expect((await rawExchange(port, message(3000))).toString('latin1')).toMatch(/^HTTP\/1\.1 431 /)
})

test('no field is dropped, however many there are', async () => {
  const { port, origin } = await proxied({ listeners: [{ port: 0, maxHeaderSize: '64KiB' }] })
  const fields = Array.from({ length: 3000 }, (_, index) => `x-${index}: 1\r\n`).join('')
  const answer = await rawExchange(port, `GET / HTTP/1.1\r\nHost: h\r\n${fields}X-Last: 1\r\nConnection: close\r\n\r\n`)
  expect(answer.toString('latin1')).toMatch(/^HTTP\/1\.1 (?:200|431|502) /)
  if (origin.requests.length > 0) expect(origin.requests[0]?.rawHeaders.map((name) => name.toLowerCase())).toContain('x-last')
})

test('listeners[].timeouts.headers: a header that does not come is not waited for', async () => {
  const { port } = await proxied({ listeners: [{ port: 0, timeouts: { headers: '300ms' } }] })
  const answer = await rawExchange(port, 'GET / HTTP/1.1\r\nHost: h\r\nX: ', { timeoutMs: 25_000 })
  expect(answer.toString('latin1')).toMatch(/^HTTP\/1\.1 408 /)
})

test('listeners[].timeouts.request: a body that does not come is not waited for', async () => {
  const { port } = await proxied({ listeners: [{ port: 0, timeouts: { headers: '300ms', request: '600ms' } }] }, (incoming, response) => {
    incoming.on('end', () => response.end('whole'))
    incoming.on('error', () => {})
    incoming.resume()
  })
  const answer = await rawExchange(port, 'POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc', { timeoutMs: 25_000 })
  expect(answer.toString('latin1')).toMatch(/^HTTP\/1\.1 408 /)
})

test('listeners[].timeouts.keepAlive: told to clients and kept', async () => {
  const { port } = await proxied({ listeners: [{ port: 0, timeouts: { keepAlive: '1s' } }] })
  const answer = await rawExchange(port, 'GET / HTTP/1.1\r\nHost: h\r\n\r\n', { timeoutMs: 25_000 })
  expect(answer.toString('latin1')).toMatch(/^HTTP\/1\.1 200 [\s\S]*Keep-Alive: timeout=1\r\n/)
})

test('100 Continue is said once the body is wanted, and not when it is not', async () => {
  const { port } = await proxied({ auth: { bearer: { tokens: ['let-me-in'] } } }, (incoming, response) => {
    incoming.on('end', () => response.end('got it'))
    incoming.resume()
  })
  const head = (credential: string): string => `POST / HTTP/1.1\r\nHost: h\r\n${credential}Expect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n`
  const refused = await rawExchange(port, head(''))
  expect(refused.toString('latin1')).toMatch(/^HTTP\/1\.1 401 /)
  const socket = await open(port)
  let received = ''
  socket.on('data', (chunk: Buffer) => {
    received += chunk.toString('latin1')
  })
  socket.write(head('Authorization: Bearer let-me-in\r\n'))
  await until(() => received.startsWith('HTTP/1.1 100 Continue\r\n\r\n'))
  socket.write('abc')
  await until(() => received.includes('got it'))
})

test('trustedProxies: whose word for the client counts', async () => {
  const headers = { 'x-forwarded-for': '198.51.100.1, 192.0.2.7', 'x-forwarded-proto': 'https' }
  const untrusting = await proxied({})
  await ask(untrusting.proxy.url, { headers })
  expect(untrusting.proxy.requests()[0]?.client).toBe('127.0.0.1')
  expect(untrusting.origin.requests[0]?.rawHeaders.join('\n').toLowerCase()).toContain('x-forwarded-for\n127.0.0.1\n')
  const trusting = await proxied({ trustedProxies: ['127.0.0.0/8'] })
  await ask(trusting.proxy.url, { headers })
  expect(trusting.proxy.requests()[0]?.client).toBe('192.0.2.7')
})

test('shutdownGrace: how long requests may take to end', async () => {
  const { proxy } = await proxied({ shutdownGrace: '200ms' }, () => {})
  const hanging = ask(proxy.url).catch(() => 'cut')
  await until(async () => (await ask(`${proxy.url}/_proxy/metrics`)).text.includes('http_requests_in_flight 1'))
  expect(await proxy.server.close()).toBe(1)
  expect(await hanging).toBe('cut')
})
