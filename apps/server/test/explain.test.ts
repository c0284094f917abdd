import { startOrigin } from '@proxy/testing'
import { describe, expect, onTestFinished, test } from 'vitest'
import { type Config, loadConfig } from '../src/index.ts'
import { ask, startProxy, tempFile } from './helpers.ts'

async function proxied(config: Partial<Config> = {}) {
  const origin = await startOrigin((request, response) => {
    const status = request.url === '/500' ? 500 : 200
    response.writeHead(status, { 'cache-control': request.url === '/private' ? 'private' : 'max-age=60', vary: 'accept' }).end('hello')
  })
  onTestFinished(() => origin.close())
  const proxy = await startProxy({ pools: { web: { targets: [origin.url] } }, ...config })
  const explain = async (query: string): Promise<{ status: number; json: Record<string, unknown> }> => {
    const { status, text } = await ask(`${proxy.url}/_proxy/explain?${query}`)
    return { status, json: JSON.parse(text) as Record<string, unknown> }
  }
  return { origin, proxy, explain }
}

describe('/_proxy/explain', () => {
  test('why a request would be answered as it would', async () => {
    const { explain, origin, proxy } = await proxied()
    const url = encodeURIComponent(`${proxy.url}/a`)
    expect(await explain(`url=${url}`)).toMatchObject({ status: 200, json: { decision: 'fetch', because: 'uri-miss', url: `${proxy.url}/a` } })
    await ask(`${proxy.url}/a`, { headers: { accept: 'image/png' } })
    expect((await explain(`url=${url}&header=Accept:%20image/png`)).json).toMatchObject({ decision: 'hit', because: 'fresh', variesBy: ['accept'], stored: { lifetimeFrom: 'max-age' } })
    expect((await explain(`url=${url}&header=accept:image/avif`)).json).toMatchObject({ decision: 'fetch', because: 'vary-miss' })
    expect((await explain(`url=${url}&header=accept:image/png&header=cache-control:no-cache`)).json).toMatchObject({ decision: 'revalidate', because: 'request' })
    expect((await explain(`url=${url}&method=DELETE`)).json).toMatchObject({ decision: 'pass', because: 'method' })
    expect(origin.requests.length).toBe(1)
  })

  test('sees a request as the cache sees it: with what its route changes', async () => {
    const { explain, proxy } = await proxied({
      routes: [
        { pool: 'web', dropQuery: true },
        { pool: 'web', match: { path: '/plain' }, cache: false }
      ]
    })
    expect((await explain(`url=${encodeURIComponent(`${proxy.url}/a?x=1`)}`)).json).toMatchObject({ url: `${proxy.url}/a` })
    expect((await explain(`url=${proxy.url}/plain`)).json).toEqual({ decision: 'pass', because: 'route', namespace: 'web:/plain' })
  })

  test.each([
    ['', 400, 'url must be'],
    ['url=/a', 400, 'url must be'],
    ['url=http://a.example/&header=x', 400, 'header must be'],
    ['url=http://other.example/x', 404, 'no route'],
    ['url=http://only.example/x/..%252f_proxy', 400, 'different routes']
  ])('%s: %i', async (query, status, message) => {
    const { explain } = await proxied({ routes: [{ pool: 'web', match: { host: 'only.example' } }] })
    expect(await explain(query)).toEqual({ status, json: { error: expect.stringContaining(message) } })
  })

  test('is not for everybody', async () => {
    const { proxy } = await proxied({ admin: { allow: [], key: 'correct-horse-battery' } })
    expect((await ask(`${proxy.url}/_proxy/explain?url=http://a.example/`)).status).toBe(401)
    expect((await ask(`${proxy.url}/_proxy/explain?url=http://a.example/`, { headers: { 'x-api-key': 'correct-horse-battery' } })).status).toBe(200)
    expect((await ask(`${proxy.url}/_proxy/explain`, { method: 'POST' })).status).toBe(405)
  })
})

test('observability.cacheDebugHeader', async () => {
  const { proxy } = await proxied({ observability: { cacheDebugHeader: 'X-Why' } })
  const answer = await ask(`${proxy.url}/private`)
  expect(JSON.parse(String(answer.headers['x-why']))).toMatchObject({ decision: 'fetch', answer: { stored: false, reason: 'private' } })
  expect((await ask((await proxied()).proxy.url)).headers['x-why']).toBeUndefined()
})

test('too many variants are counted', async () => {
  const { proxy } = await proxied({ cache: { maxVariants: 1 } })
  for (const accept of ['a/b', 'c/d', 'e/f']) await ask(proxy.url, { headers: { accept } })
  expect((await ask(`${proxy.url}/_proxy/metrics`)).text).toContain('proxy_cache_variants_refused_total 2')
})

describe('preload', () => {
  test('fetches a list into the cache, past authentication and limits, and says how it went', async () => {
    const urls = ['http://images.example/1', 'http://images.example/2', 'http://images.example/500', 'http://images.example/private']
    const { origin, proxy } = await proxied({
      preload: { urls, concurrency: 2 },
      auth: { bearer: { tokens: ['correct-horse-battery'] } },
      rateLimit: { algorithm: 'sliding-window', limit: 1, window: '1h' }
    })
    await expect.poll(() => proxy.lines.find(({ msg }) => msg === 'preload done')).toMatchObject({ requested: 4, cached: 2, notStored: 1, failed: 1 })
    expect(proxy.lines.filter(({ msg }) => msg === 'preload failed')).toMatchObject([{ url: 'http://images.example/500', status: 500 }])
    const before = origin.requests.length
    const hit = await ask(`${proxy.url}/1`, { headers: { host: 'images.example', authorization: 'Bearer correct-horse-battery' } })
    expect([hit.status, String(hit.headers['cache-status'])]).toEqual([200, expect.stringContaining('hit')])
    expect(origin.requests.length).toBe(before)
  })

  test('does not hold up the end of the server', async () => {
    const hanging = await startOrigin(() => {})
    onTestFinished(() => hanging.close())
    const proxy = await startProxy({ pools: { web: { targets: [hanging.url] } }, preload: { urls: ['http://a.example/1'] } })
    await expect.poll(() => hanging.requests.length).toBe(1)
    const started = performance.now()
    await proxy.server.close(100)
    expect(performance.now() - started).toBeLessThan(5000)
  })

  test.each(['/a', 'ftp://a.example/', 'images.example/1'])('%j is no URL', async (url) => {
    const file = tempFile(`pools: { web: { targets: ["http://127.0.0.1:9"] } }\npreload: { urls: ["${url}"] }\n`)
    await expect(loadConfig(file, {})).rejects.toThrow('preload.urls[0]: is a whole URL')
  })
})
