import { request } from 'node:http'
import { createRequest, ProxyError } from '@proxy/pipeline'
import { startOrigin } from '@proxy/testing'
import { pino } from 'pino'
import { expect, onTestFinished, test } from 'vitest'
import { accessLog } from '../src/access-log.ts'
import { ask, listeningUrl, runCli, startProxy, until } from './helpers.ts'

test('one line per request: id, upstream, status, cache result, duration', async () => {
  const origin = await startOrigin((_, response) => response.writeHead(200, { 'cache-control': 'max-age=60' }).end('body'))
  onTestFinished(() => origin.close())
  const proxy = await startProxy({ pools: { web: { targets: [{ url: origin.url, name: 'one' }] } } })
  await ask(`${proxy.url}/a/b?token=hidden`)
  await ask(`${proxy.url}/a/b?token=hidden`)
  const { host } = new URL(proxy.url)
  const common = {
    level: 'info',
    time: expect.any(Number),
    requestId: expect.any(String),
    client: '127.0.0.1',
    method: 'GET',
    host,
    path: '/a/b',
    status: 200,
    durationMs: expect.any(Number),
    msg: 'request'
  }
  expect(proxy.requests()).toEqual([
    { ...common, cache: 'miss', upstream: 'one', upstreamResult: 200, attempts: 1 },
    { ...common, cache: 'hit' }
  ])
  for (const { durationMs } of proxy.requests()) expect(durationMs).toBeGreaterThan(0)
})

test('no secret of a request or of the configuration is written', async () => {
  const secrets = ['query-secret', 'bearer-secret', 'cookie-secret', 'api-key-secret', 'admin-secret-key', 'upstream-secret', 'redis-secret']
  const origin = await startOrigin((_, response) => response.writeHead(200, { 'set-cookie': 'session=cookie-secret' }).end('x'))
  onTestFinished(() => origin.close())
  const proxy = await startProxy({
    pools: { web: { targets: [origin.url], requestHeaders: { set: { authorization: 'Bearer upstream-secret' } } } },
    admin: { key: 'admin-secret-key' },
    auth: { bearer: { tokens: ['bearer-secret'] }, apiKey: { keys: ['api-key-secret'] } },
    stores: { redis: { url: 'redis://:redis-secret@127.0.0.1:1' } },
    cache: { tiers: ['memory', 'redis'] },
    observability: { logLevel: 'trace' }
  })
  const headers = { authorization: 'Bearer bearer-secret', cookie: 'session=cookie-secret', 'x-api-key': 'api-key-secret' }
  expect((await ask(`${proxy.url}/a?key=query-secret`, { headers })).status).toBe(200)
  expect((await ask(`${proxy.url}/a?key=query-secret`, { headers: { authorization: 'Bearer wrong-bearer-secret' } })).status).toBe(401)
  await ask(`${proxy.url}/_proxy/metrics`, { headers: { 'x-api-key': 'admin-secret-key' } })
  proxy.server.note('error', 'a driver said', new Error('AUTH redis-secret failed', { cause: new Error('admin-secret-key') }))
  expect(proxy.lines.at(-1)).toMatchObject({ error: { message: 'AUTH *** failed', cause: '***' } })
  for (const secret of secrets) expect(proxy.logText()).not.toContain(secret)
})

test('a client cannot forge a line', async () => {
  const origin = await startOrigin((_, response) => response.end('x'))
  onTestFinished(() => origin.close())
  const proxy = await startProxy({ pools: { web: { targets: [origin.url] } } })
  await ask(`${proxy.url}/a%0a%22,%22status%22:1`)
  expect(proxy.requests()).toHaveLength(1)
  expect(proxy.requests()[0]?.path).toBe('/a%0a%22,%22status%22:1')
})

test('a message that was refused has a line, with what was wrong', async () => {
  const proxy = await startProxy({ pools: { web: { targets: ['http://127.0.0.1:1'] } } })
  await ask(proxy.url, { headers: { host: 'a b' } })
  expect(proxy.requests()).toEqual([{ level: 'info', time: expect.any(Number), status: 400, error: { code: 'CLIENT_BAD_REQUEST', message: expect.any(String) }, msg: 'request' }])
})

test('a client that leaves shows as aborted', async () => {
  const origin = await startOrigin((_, response) => {
    response.writeHead(200, { 'content-length': '10' })
    response.write('half')
  })
  onTestFinished(() => origin.close())
  const proxy = await startProxy({ pools: { web: { targets: [origin.url] } }, routes: [{ pool: 'web', cache: false }] })
  await new Promise<void>((resolve) => {
    const outgoing = request(proxy.url, (incoming) => {
      incoming.on('error', () => {})
      incoming.once('data', () => {
        outgoing.destroy()
        resolve()
      })
    })
    outgoing.on('error', () => {})
    outgoing.end()
  })
  await until(() => proxy.requests().length === 1)
  expect(proxy.requests()[0]).toMatchObject({ status: 200, outcome: 'aborted' })
})

test('--access-log off: no line per request, all others', async () => {
  const origin = await startOrigin((_, response) => response.end('x'))
  onTestFinished(() => origin.close())
  for (const [mode, lines] of [
    ['on', 1],
    ['off', 0]
  ] as const) {
    const cli = runCli(['--upstream', origin.url, '--listen', '127.0.0.1:0', '--access-log', mode])
    const url = await listeningUrl(cli)
    expect((await ask(url)).status).toBe(200)
    cli.child.kill('SIGTERM')
    expect(await cli.exit).toEqual({ code: 0, signal: null })
    expect(cli.stdout().match(/"msg":"request"/g) ?? []).toHaveLength(lines)
    expect(cli.stdout()).toContain('"msg":"listening"')
  }
})

test.each(['a"b', 'a\\b', 'a\nb', 'a\u0000b', 'ä€😀', '\ud800', ''])('a line is well-formed with %j in it, and says the same', (odd) => {
  const lines: string[] = []
  const log = accessLog({ logger: pino({ level: 'info' }), writeLine: (line) => lines.push(line) }, (text) => text)
  const request = createRequest({ method: odd, authority: odd, target: `/${odd}`, remoteAddress: odd })
  request.exchange.requestId = odd
  log?.(request, 502, odd, new ProxyError(odd, { code: 'UPSTREAM_FAILED', status: 502, source: 'upstream' }))
  expect(lines.length).toBe(1)
  expect(lines[0]?.indexOf('\n')).toBe((lines[0] as string).length - 1)
  const { requestId = '', client, method, host, path, outcome, error } = JSON.parse(lines[0] as string) as Record<string, string> & { error: { message: string } }
  expect([requestId, client, method, host, path, outcome, error.message]).toEqual([odd, odd, odd, odd, `/${odd}`, odd, odd])
})

test('no line where the level leaves it out', () => {
  expect(accessLog({ logger: pino({ level: 'warn' }), writeLine: () => {} }, (text) => text)).toBeUndefined()
})
