import { rawExchange } from '@proxy/testing'
import { expect, test } from 'vitest'
import { ask, silentPort, startProxy, until } from './helpers.ts'

const pools = { web: { targets: ['http://127.0.0.1:9'] } }

// node:http closes the connection of a CONNECT that nobody listens for: the client had no answer, and neither log nor metrics knew of it.
test('CONNECT is answered with 501, logged and counted, and ends the connection', async () => {
  const proxy = await startProxy({ pools })
  const port = Number(new URL(proxy.url).port)
  const sentAhead = 'GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n'
  const answer = (await rawExchange(port, `CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n${sentAhead}`)).toString('latin1')
  expect(answer).toMatch(/^HTTP\/1\.1 501 Not Implemented\r\n/)
  expect(answer).toMatch(/\r\nConnection: close\r\n/i)
  expect(answer).toMatch(/\r\n\r\nNot Implemented\n$/)
  await until(() => proxy.requests().length > 0)
  expect(proxy.requests()).toHaveLength(1)
  expect(proxy.requests()[0]).toMatchObject({ method: 'CONNECT', host: 'example.org:443', status: 501, client: '127.0.0.1', error: { code: 'TUNNEL_REFUSED' } })
  const { text } = await ask(`${proxy.url}/_proxy/metrics`)
  expect(text).toContain('http_requests_total{method="CONNECT",status="501"} 1')
  expect(text).toContain('http_requests_in_flight 0')
})

test('CONNECT behind a request that is being answered ends the connection, and no more', async () => {
  const proxy = await startProxy({ pools: { web: { targets: [`http://127.0.0.1:${await silentPort()}`] } } })
  const messages = 'GET / HTTP/1.1\r\nHost: h\r\n\r\nCONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n'
  expect(await rawExchange(Number(new URL(proxy.url).port), messages)).toHaveLength(0)
  await until(() => proxy.requests().length > 0)
  expect(proxy.requests()[0]).toMatchObject({ method: 'CONNECT', outcome: 'aborted' })
  expect((await ask(`${proxy.url}/_proxy/health`)).status).toBe(200)
})

test('a client that resets the connection after CONNECT, or stays on it, disturbs nobody', async () => {
  const proxy = await startProxy({ pools })
  const port = Number(new URL(proxy.url).port)
  await Promise.all(Array.from({ length: 20 }, () => rawExchange(port, 'CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n', { until: /501/ })))
  expect((await ask(`${proxy.url}/_proxy/health`)).status).toBe(200)
  expect(await proxy.server.close(30_000)).toBe(0)
})

// It went to the routes, which match paths: 404.
test('OPTIONS * is about the server itself', async () => {
  const proxy = await startProxy({ pools })
  const port = Number(new URL(proxy.url).port)
  const answer = (await rawExchange(port, 'OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')).toString('latin1')
  expect(answer).toMatch(/^HTTP\/1\.1 204 No Content\r\n/)
  expect(answer).toMatch(/\r\nallow: .*\bGET\b.*\bPOST\b/i)
  expect(answer).not.toMatch(/CONNECT/)
  expect(proxy.requests()[0]).toMatchObject({ method: 'OPTIONS', path: '*', status: 204 })
})
