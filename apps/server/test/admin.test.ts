import { Agent } from 'node:http'
import { rawExchange, startOrigin } from '@proxy/testing'
import { describe, expect, onTestFinished, test } from 'vitest'
import { adminApp } from '../src/admin.ts'
import { resolveConfig } from '../src/index.ts'
import { Metrics } from '../src/metrics.ts'
import { ask, startProxy } from './helpers.ts'

const pools = { web: { targets: ['http://127.0.0.1:1'] } }

/** Asks for the metrics as a peer at `address` would. */
async function asPeer(address: string, admin: object, headers: Record<string, string> = {}, trustedProxies: string[] = []): Promise<number> {
  const settings = resolveConfig({ pools, admin, trustedProxies })
  const app = adminApp({
    settings,
    metrics: new Metrics(),
    state: () => 'ready',
    onError: () => {},
    explain: async () => ({ status: 404, headers: {}, body: null }),
    purge: async () => ({ touched: 0 }),
    onAudit: () => {}
  })
  const response = await app.request('http://x/_proxy/metrics', { headers }, { incoming: { socket: { remoteAddress: address } } } as never)
  return response.status
}

describe('the metrics', () => {
  const key = 'correct-horse-battery'

  test.each([
    ['this machine', '127.0.0.1', {}, {}, 200],
    ['this machine, IPv6', '::1', {}, {}, 200],
    ['this machine, IPv4 on an IPv6 socket', '::ffff:127.0.0.1', {}, {}, 200],
    ['a peer elsewhere', '192.0.2.7', {}, {}, 403],
    ['a peer elsewhere without the key', '192.0.2.7', { key }, {}, 401],
    ['a peer elsewhere with a wrong key', '192.0.2.7', { key }, { 'x-api-key': 'correct-horse-batterz' }, 401],
    ['a peer elsewhere with the key', '192.0.2.7', { key }, { 'x-api-key': key }, 200],
    ['a peer elsewhere with the key as bearer token', '192.0.2.7', { key }, { authorization: `Bearer ${key}` }, 200],
    ['an allowed peer', '192.0.2.7', { allow: ['192.0.2.0/24'] }, {}, 200],
    ['this machine when it is not allowed', '127.0.0.1', { allow: [], key }, {}, 401],
    ['this machine on behalf of somebody', '127.0.0.1', {}, { 'x-forwarded-for': '192.0.2.7' }, 403],
    ['this machine on behalf of somebody, by Forwarded', '127.0.0.1', {}, { forwarded: 'for=192.0.2.7' }, 403]
  ])('%s', async (_, address, admin, headers, status) => expect(await asPeer(address, admin, headers)).toBe(status))

  test('a trusted proxy on this machine speaks for its clients', async () => {
    expect(await asPeer('127.0.0.1', {}, { 'x-forwarded-for': '192.0.2.7' }, ['127.0.0.1'])).toBe(403)
    expect(await asPeer('127.0.0.1', { allow: ['192.0.2.7'] }, { 'x-forwarded-for': '192.0.2.7' }, ['127.0.0.1'])).toBe(200)
  })

  test('can be left out', async () => {
    const proxy = await startProxy({ pools, observability: { metrics: false } })
    expect((await ask(`${proxy.url}/_proxy/metrics`)).status).toBe(404)
  })
})

describe('the reserved prefix', () => {
  test('health and readiness', async () => {
    const proxy = await startProxy({ pools })
    const health = await ask(`${proxy.url}/_proxy/health`)
    expect(health).toMatchObject({ status: 200, headers: { 'content-type': 'application/json', 'cache-control': 'no-store' } })
    expect(JSON.parse(health.text)).toEqual({ status: 'healthy', timestamp: expect.stringMatching(/^\d{4}-.*Z$/) })
    expect(await ask(`${proxy.url}/_proxy/ready`)).toMatchObject({ status: 200, text: '{"status":"ready"}' })
    expect(await ask(`${proxy.url}/_proxy/ready?x=1`)).toMatchObject({ status: 200 })
    expect((await ask(`${proxy.url}/_proxy/ready`, { method: 'HEAD' })).status).toBe(200)
  })

  test('other methods and other paths', async () => {
    const proxy = await startProxy({ pools })
    expect(await ask(`${proxy.url}/_proxy/health`, { method: 'POST', body: 'x' })).toMatchObject({ status: 405, headers: { allow: 'GET, HEAD' } })
    expect((await ask(`${proxy.url}/_proxy/none`)).status).toBe(404)
    expect((await ask(`${proxy.url}/_proxy`)).status).toBe(404)
    const dots = await rawExchange(Number(new URL(proxy.url).port), 'GET /_proxy/../metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
    expect(dots.toString('latin1')).toMatch(/^HTTP\/1\.1 404 /)
  })

  test('not ready once it is draining, on a connection that is still open', async () => {
    const proxy = await startProxy({ pools })
    const settings = resolveConfig({ pools })
    const app = adminApp({
      settings,
      state: () => 'draining',
      onError: () => {},
      explain: async () => ({ status: 404, headers: {}, body: null }),
      purge: async () => ({ touched: 0 }),
      onAudit: () => {}
    })
    const response = await app.request('http://x/_proxy/ready')
    expect(response.status).toBe(503)
    expect(await response.json()).toEqual({ status: 'draining' })
    await proxy.server.close()
    expect(proxy.server.state).toBe('draining')
  })

  test('never reaches an origin, and what only looks like it does', async () => {
    const origin = await startOrigin((request, response) => response.end(request.url))
    onTestFinished(() => origin.close())
    const proxy = await startProxy({ pools: { web: { targets: [origin.url] } }, admin: { prefix: '/-/own' } })
    const port = Number(new URL(proxy.url).port)
    expect((await ask(`${proxy.url}/-/own/health`)).status).toBe(200)
    expect((await ask(`${proxy.url}/-/owner`)).text).toBe('/-/owner')
    expect((await ask(`${proxy.url}/_proxy/health`)).text).toBe('/_proxy/health')
    const absolute = await rawExchange(port, 'GET http://h/-/own/metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
    expect(absolute.toString('latin1')).toMatch(/^HTTP\/1\.1 404 /)
    const escaped = await rawExchange(port, 'GET /-/%6fwn/metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
    expect(escaped.toString('latin1')).toMatch(/^HTTP\/1\.1 400 /)
    expect(origin.requests.map(({ url }) => url)).toEqual(['/-/owner', '/_proxy/health'])
  })

  test('answers while every connection to the origin hangs', async () => {
    const origin = await startOrigin(() => {})
    onTestFinished(() => origin.close())
    const proxy = await startProxy({ pools: { web: { targets: [origin.url], connections: 2 } } })
    const agent = new Agent()
    onTestFinished(() => agent.destroy())
    const hanging = Array.from({ length: 5 }, (_, index) => ask(`${proxy.url}/${index}`, { agent }).catch(() => undefined))
    expect((await ask(`${proxy.url}/_proxy/health`)).status).toBe(200)
    await proxy.server.close(0)
    await Promise.all(hanging)
  })
})

describe('purging', () => {
  const key = 'correct-horse-battery'
  async function start(admin: object = { key }) {
    const origin = await startOrigin((_, response) => response.writeHead(200, { 'cache-control': 'max-age=60', 'surrogate-key': 'one' }).end('text'))
    onTestFinished(() => origin.close())
    const proxy = await startProxy({ pools: { web: { targets: [origin.url] } }, routes: [{ pool: 'web' }, { pool: 'web', match: { path: '/other' } }], admin })
    const purge = (body: unknown, headers: Record<string, string> = { 'x-api-key': key }) =>
      ask(`${proxy.url}/_proxy/purge`, { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body), headers })
    const status = async (path: string) => String((await ask(proxy.url + path)).headers['cache-status'])
    return { proxy, purge, status }
  }

  test('by URL, over all routes, with the key; an audit line says who and what', async () => {
    const { proxy, purge, status } = await start()
    for (const path of ['/a', '/b', '/other']) await status(path)
    expect(await purge({ url: `${proxy.url}/a` })).toMatchObject({ status: 200, text: '{"touched":1}', headers: { 'cache-control': 'no-store' } })
    expect(await status('/a')).toContain('fwd=uri-miss')
    expect(await status('/b')).toContain('hit')
    expect((await purge({ tag: 'one', soft: true }, { authorization: `Bearer ${key}` })).text).toBe('{"touched":3}')
    expect(await status('/other')).toContain('fwd=stale')
    expect((await purge({ all: true })).text).toBe('{"touched":3}')
    const lines = proxy.lines.filter(({ msg }) => msg === 'admin call')
    expect(lines[0]).toMatchObject({ level: 'info', action: 'purge', peer: '127.0.0.1', status: 200, details: { url: `${proxy.url}/a`, touched: 1 } })
    expect(lines).toHaveLength(3)
    expect(proxy.logText()).not.toContain(key)
  })

  test('not from this machine without the key, and not at all where none is configured', async () => {
    const { proxy, purge } = await start()
    expect((await purge({ all: true }, {})).status).toBe(401)
    expect((await purge({ all: true }, { 'x-api-key': 'wrong' })).status).toBe(401)
    expect(proxy.lines.filter(({ msg, status }) => msg === 'admin call' && status === 401)).toHaveLength(2)
    const open = await start({})
    expect((await open.purge({ all: true })).status).toBe(403)
    expect((await ask(`${proxy.url}/_proxy/purge`, { headers: { 'x-api-key': key } })).status).toBe(405)
  })

  test.each([
    ['', 'a JSON object is wanted'],
    ['[]', 'a JSON object is wanted'],
    ['{"all":true', 'a JSON object is wanted'],
    [{}, 'exactly one'],
    [{ url: '/a' }, 'must be an http or https URL'],
    [{ prefix: '*' }, 'must be an http or https URL'],
    [{ tag: '' }, 'tag is empty'],
    [{ everything: true }, 'unknown key \\"everything\\"'],
    [{ all: true, soft: 'yes' }, 'soft must be true or false']
  ])('what names nothing is refused: %j', async (body, message) => {
    const { purge } = await start()
    const { status, text } = await purge(body)
    expect([status, text]).toEqual([400, expect.stringContaining(message)])
  })

  test('a body that no purge can be is not read', async () => {
    const { purge } = await start()
    expect((await purge({ url: `http://x/${'a'.repeat(20_000)}` })).status).toBe(413)
  })
})
