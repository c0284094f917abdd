import { startOrigin } from '@proxy/testing'
import { describe, expect, onTestFinished, test } from 'vitest'
import { ask, startProxy } from './helpers.ts'

type Listener = Parameters<typeof startOrigin>[0]

const echo: Listener = (request, response) => {
  response.writeHead(request.url?.startsWith('/missing') ? 404 : 200, { 'cache-control': 'max-age=60', server: 'origin', 'content-type': 'text/plain' }).end(`${request.method} ${request.url}`)
}

async function proxied(config: object, listener: Listener = echo) {
  const origin = await startOrigin(listener)
  onTestFinished(() => origin.close())
  const proxy = await startProxy({ pools: { web: { targets: [origin.url] } }, ...config })
  const fieldsAtOrigin = (index = -1): Record<string, string> => {
    const { rawHeaders } = origin.requests.at(index) as (typeof origin.requests)[number]
    return Object.fromEntries(rawHeaders.flatMap((name, at) => (at % 2 === 0 ? [[name.toLowerCase(), rawHeaders[at + 1] as string]] : [])))
  }
  return { origin, proxy, fieldsAtOrigin }
}

describe('routes[]', () => {
  test('match and pool: by host and by path', async () => {
    const other = await startOrigin((_, response) => response.end('other'))
    onTestFinished(() => other.close())
    const origin = await startOrigin((_, response) => response.end('main'))
    onTestFinished(() => origin.close())
    const proxy = await startProxy({
      pools: { main: { targets: [origin.url] }, other: { targets: [other.url] } },
      routes: [
        { pool: 'main', match: { path: '/app' } },
        { pool: 'other', match: { path: '/app/images/' } },
        { pool: 'other', match: { host: 'other.example.org' } }
      ]
    })
    expect((await ask(`${proxy.url}/app/x`)).text).toBe('main')
    expect((await ask(`${proxy.url}/app/images/x`)).text).toBe('other')
    expect((await ask(`${proxy.url}/x`)).status).toBe(404)
    expect((await ask(`${proxy.url}/x`, { headers: { host: 'other.example.org' } })).text).toBe('other')
  })

  test('methods: others are 405 and never reach the pool', async () => {
    const { proxy, origin } = await proxied({ routes: [{ pool: 'web', methods: ['GET'] }] })
    expect(await ask(proxy.url, { method: 'DELETE' })).toMatchObject({ status: 405, headers: { allow: 'GET' } })
    expect((await ask(proxy.url)).status).toBe(200)
    expect(origin.requests).toHaveLength(1)
  })

  test('cache: false', async () => {
    const { proxy, origin } = await proxied({ routes: [{ pool: 'web' }, { pool: 'web', match: { path: '/live' }, cache: false }] })
    for (const path of ['/a', '/a', '/live', '/live']) await ask(proxy.url + path)
    expect(origin.requests.map(({ url }) => url)).toEqual(['/a', '/live', '/live'])
  })

  test('two routes to one pool do not share what they cache', async () => {
    const { proxy, fieldsAtOrigin, origin } = await proxied({
      routes: [
        { pool: 'web', match: { host: 'a.example' }, requestHeaders: { set: { 'x-tenant': 'a' } } },
        { pool: 'web', match: { host: '*.example' }, requestHeaders: { set: { 'x-tenant': 'rest' } } }
      ]
    })
    await ask(`${proxy.url}/x`, { headers: { host: 'a.example' } })
    await ask(`${proxy.url}/x`, { headers: { host: 'b.example' } })
    expect(origin.requests).toHaveLength(2)
    expect(fieldsAtOrigin()['x-tenant']).toBe('rest')
  })

  test('dropQuery: neither forwarded nor part of the key', async () => {
    const { proxy, origin } = await proxied({ routes: [{ pool: 'web', dropQuery: true }] })
    expect((await ask(`${proxy.url}/a?x=1`)).text).toBe('GET /a')
    expect((await ask(`${proxy.url}/a?x=2`)).headers['cache-status']).toContain('hit')
    expect(origin.requests).toHaveLength(1)
  })

  test('requestHeaders: set and removed on the way in', async () => {
    const { proxy, fieldsAtOrigin } = await proxied({ routes: [{ pool: 'web', requestHeaders: { set: { 'X-Tenant': 'a' }, remove: ['Cookie'] } }] })
    await ask(proxy.url, { headers: { cookie: 'a=b', 'x-tenant': 'forged' } })
    expect(fieldsAtOrigin()).toMatchObject({ 'x-tenant': 'a' })
    expect(fieldsAtOrigin()).not.toHaveProperty('cookie')
  })

  test('responseHeaders: set below 400, always, and removed; on hits too', async () => {
    const { proxy } = await proxied({ routes: [{ pool: 'web', responseHeaders: { set: { 'Cache-Control': 'public, max-age=7' }, always: { 'x-always': '1' }, remove: ['Server'] } }] })
    for (const word of ['fwd=uri-miss', 'hit']) {
      const { headers } = await ask(`${proxy.url}/a`)
      expect(headers).toMatchObject({ 'cache-control': 'public, max-age=7', 'x-always': '1', 'cache-status': expect.stringContaining(word) })
      expect(headers).not.toHaveProperty('server')
    }
    const { headers } = await ask(`${proxy.url}/missing`)
    expect(headers).toMatchObject({ 'cache-control': 'max-age=60', 'x-always': '1' })
    expect(headers).not.toHaveProperty('server')
  })
})

describe('auth', () => {
  const auth = {
    realm: 'images',
    bearer: { tokens: ['token-one', { secret: 'token-two', name: 'two' }] },
    basic: { users: { ann: 'pass' }, rawTokens: ['raw-token'] },
    apiKey: { keys: ['key-one'], header: 'X-Image-Key' }
  }

  test('each way in, and what is accepted does not travel further', async () => {
    const { proxy, fieldsAtOrigin } = await proxied({ auth })
    const ways: Record<string, string>[] = [
      { authorization: 'Bearer token-one' },
      { authorization: 'Bearer token-two' },
      { authorization: `Basic ${Buffer.from('ann:pass').toString('base64')}` },
      { authorization: 'Basic raw-token' },
      { 'x-image-key': 'key-one' }
    ]
    for (const headers of ways) {
      expect((await ask(proxy.url, { headers })).status, JSON.stringify(headers)).toBe(200)
      expect(fieldsAtOrigin()).not.toHaveProperty('authorization')
      expect(fieldsAtOrigin()).not.toHaveProperty('x-image-key')
    }
    const refused = await ask(proxy.url, { headers: { authorization: 'Bearer token-three' } })
    expect(refused.status).toBe(401)
    expect(refused.headers['www-authenticate']).toContain('Bearer realm="images"')
  })

  test('a route may do without, and an answer for one client is not given to another', async () => {
    const { proxy, origin } = await proxied({ auth, routes: [{ pool: 'web' }, { pool: 'web', match: { path: '/public/' }, auth: false }] })
    expect((await ask(`${proxy.url}/public/a`)).status).toBe(200)
    expect((await ask(`${proxy.url}/private`)).status).toBe(401)
    // The same thing by another name does not get past it.
    expect((await ask(`${proxy.url}/public/..%2fprivate`)).status).toBe(400)
    const headers = { authorization: 'Bearer token-one' }
    await ask(`${proxy.url}/private`, { headers })
    await ask(`${proxy.url}/private`, { headers: { authorization: 'Bearer token-two' } })
    expect(origin.requests.map(({ url }) => url)).toEqual(['/public/a', '/private', '/private'])
  })
})

describe('rateLimit', () => {
  const statuses = async (url: string, count: number, headers: Record<string, string> = {}): Promise<number[]> => {
    const found: number[] = []
    for (let i = 0; i < count; i++) found.push((await ask(url, { headers })).status)
    return found
  }

  test('token-bucket: rate, per and burst', async () => {
    const { proxy } = await proxied({ rateLimit: { algorithm: 'token-bucket', rate: 1, per: '1h', burst: 3 } })
    expect(await statuses(proxy.url, 4)).toEqual([200, 200, 200, 429])
    const limited = await ask(proxy.url)
    expect(Number(limited.headers['retry-after'])).toBeGreaterThan(3000)
    expect(limited.headers.ratelimit).toBeDefined()
    // Its own pages are not limited.
    expect((await ask(`${proxy.url}/_proxy/health`)).status).toBe(200)
  })

  test('sliding-window: limit and window; headers: x', async () => {
    const { proxy } = await proxied({ rateLimit: { algorithm: 'sliding-window', limit: 2, window: '1h', headers: 'x' } })
    expect(await statuses(proxy.url, 3)).toEqual([200, 200, 429])
    const limited = await ask(proxy.url)
    expect(limited.headers['x-ratelimit-limit']).toBe('2')
    expect(limited.headers).not.toHaveProperty('ratelimit')
  })

  test('headers: none; a route may do without; the limit is one for all routes', async () => {
    const { proxy } = await proxied({
      rateLimit: { algorithm: 'sliding-window', limit: 1, window: '1h', headers: 'none' },
      routes: [{ pool: 'web' }, { pool: 'web', match: { path: '/b' } }, { pool: 'web', match: { path: '/free' }, rateLimit: false }]
    })
    expect(await statuses(`${proxy.url}/a`, 1)).toEqual([200])
    const limited = await ask(`${proxy.url}/b`)
    expect(limited.status).toBe(429)
    expect(Object.keys(limited.headers).filter((name) => name.includes('ratelimit'))).toEqual([])
    expect(await statuses(`${proxy.url}/free`, 3)).toEqual([200, 200, 200])
  })

  test('key: a field, or who was authenticated', async () => {
    const byField = await proxied({ rateLimit: { algorithm: 'sliding-window', limit: 1, window: '1h', key: { header: 'X-Tenant' } } })
    expect(await statuses(byField.proxy.url, 2, { 'x-tenant': 'a' })).toEqual([200, 429])
    expect(await statuses(byField.proxy.url, 1, { 'x-tenant': 'b' })).toEqual([200])
    const byPrincipal = await proxied({ auth: { bearer: { tokens: ['one-token', 'two-token'] } }, rateLimit: { algorithm: 'sliding-window', limit: 1, window: '1h', key: 'principal' } })
    expect(await statuses(byPrincipal.proxy.url, 2, { authorization: 'Bearer one-token' })).toEqual([200, 429])
    expect(await statuses(byPrincipal.proxy.url, 1, { authorization: 'Bearer two-token' })).toEqual([200])
    // Limited after authentication: who is refused takes nothing from anybody.
    expect(await statuses(byPrincipal.proxy.url, 2)).toEqual([401, 401])
  })

  test('by address it comes before authentication, so that guessing is limited', async () => {
    const { proxy } = await proxied({ auth: { bearer: { tokens: ['one-token'] } }, rateLimit: { algorithm: 'sliding-window', limit: 2, window: '1h' } })
    expect(await statuses(proxy.url, 3)).toEqual([401, 401, 429])
  })

  test('maxKeys: beyond it, clients are forgotten', async () => {
    const { proxy } = await proxied({ rateLimit: { algorithm: 'token-bucket', rate: 1, per: '1h', burst: 1, key: { header: 'x-tenant' }, maxKeys: 1 } })
    expect(await statuses(proxy.url, 2, { 'x-tenant': 'a' })).toEqual([200, 429])
    expect(await statuses(proxy.url, 1, { 'x-tenant': 'b' })).toEqual([200])
    expect(await statuses(proxy.url, 1, { 'x-tenant': 'a' })).toEqual([200])
  })
})

describe('observability', () => {
  test('logLevel: what is below it is not written', async () => {
    const quiet = await proxied({ observability: { logLevel: 'warn' } })
    await ask(quiet.proxy.url)
    quiet.proxy.server.note('warn', 'look')
    expect(quiet.proxy.lines.map(({ msg }) => msg)).toEqual(['look'])
    const silent = await proxied({ observability: { logLevel: 'silent' } })
    silent.proxy.server.note('error', 'look')
    expect(silent.proxy.lines).toEqual([])
  })

  test('accessLog: false', async () => {
    const { proxy } = await proxied({ observability: { accessLog: false } })
    await ask(proxy.url)
    expect(proxy.requests()).toEqual([])
    expect(proxy.lines).toHaveLength(1)
  })

  test('accessLog and metrics both off: requests are served', async () => {
    const { proxy } = await proxied({ observability: { accessLog: false, metrics: false } })
    expect((await ask(proxy.url)).status).toBe(200)
  })

  test('cacheStatusHeader', async () => {
    const { proxy } = await proxied({ observability: { cacheStatusHeader: 'X-Cache' }, cache: { negative: { 404: '1m' } } })
    const results: unknown[] = []
    for (const path of ['/a', '/a', '/missing', '/missing']) results.push((await ask(proxy.url + path)).headers['x-cache'])
    results.push((await ask(`${proxy.url}/a`, { method: 'POST' })).headers['x-cache'])
    expect(results).toEqual(['MISS', 'HIT', 'MISS', 'NEGATIVE', 'BYPASS'])
    expect((await ask((await proxied({})).proxy.url)).headers).not.toHaveProperty('x-cache')
  })
})
