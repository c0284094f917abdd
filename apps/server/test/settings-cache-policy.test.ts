import { startOrigin } from '@proxy/testing'
import { describe, expect, onTestFinished, test } from 'vitest'
import { type Config, loadConfig } from '../src/index.ts'
import { ask, startProxy, tempFile } from './helpers.ts'

type CacheSettings = NonNullable<Config['cache']>

/** An origin that answers with the fields that the query asks for, and a proxy with two routes: one has the cache's settings, `/other` some of its own. */
async function proxied(cache: CacheSettings, other: Exclude<NonNullable<Config['routes']>[number]['cache'], undefined> = true) {
  const origin = await startOrigin((request, response) => {
    const fields = Object.fromEntries(new URL(request.url as string, 'http://x').searchParams)
    const { status = '200', ...rest } = fields
    response.writeHead(Number(status), { 'cache-control': 'max-age=60', ...rest }).end('0123456789')
  })
  onTestFinished(() => origin.close())
  const proxy = await startProxy({
    pools: { web: { targets: [origin.url] } },
    cache,
    routes: [{ pool: 'web' }, { pool: 'web', match: { path: '/other' }, cache: other }]
  })
  const status = async (path: string, headers: Record<string, string> = {}): Promise<string> => String((await ask(proxy.url + path, { headers })).headers['cache-status'])
  /** What the second of two requests gets. */
  const again = async (path: string, headers: Record<string, string> = {}): Promise<string> => {
    await status(path, headers)
    return status(path, headers)
  }
  return { origin, status, again }
}

describe('cache', () => {
  test('key.query and key.host', async () => {
    const { status } = await proxied({ key: { query: { except: ['utm_*'] }, host: false } })
    await status('/a?x=1&utm_source=2')
    expect(await status('/a?utm_source=3&x=1', { host: 'b.example' })).toContain('hit')
    expect(await status('/a?x=2')).toContain('uri-miss')
  })

  test('key.headers and key.cookies', async () => {
    const { status } = await proxied({ key: { headers: ['X-Device'], cookies: ['theme'] } })
    await status('/a', { 'x-device': 'phone', cookie: 'theme=dark' })
    expect(await status('/a', { 'x-device': 'phone', cookie: 'theme=dark; id=2' })).toContain('hit')
    expect(await status('/a', { 'x-device': 'desk', cookie: 'theme=dark' })).toContain('vary-miss')
    expect(await status('/a', { 'x-device': 'phone' })).toContain('vary-miss')
  })

  test('key.encodings, key.types and key.languages', async () => {
    const { origin, status } = await proxied({ key: { encodings: ['br', 'gzip'], types: ['image/webp'], languages: ['en', 'de'] } })
    const vary = '/a?vary=accept,accept-encoding,accept-language'
    await status(vary, { accept: 'image/webp,*/*', 'accept-encoding': 'gzip, br', 'accept-language': 'de-AT, en;q=0.5' })
    expect(await status(vary, { accept: 'image/avif,image/webp', 'accept-encoding': 'br, gzip, zstd', 'accept-language': 'de' })).toContain('hit')
    expect(await status(vary, { accept: 'image/webp', 'accept-encoding': 'gzip', 'accept-language': 'de' })).toContain('vary-miss')
    expect(origin.requests[0]?.rawHeaders).toEqual(expect.arrayContaining(['image/webp, */*;q=0.1', 'br, gzip', 'de']))
  })

  test('bypass', async () => {
    const { again } = await proxied({ bypass: [{ query: '_health_check', value: '1' }, { path: '/account' }, { cookie: 'session', header: 'x-user' }] })
    expect(await again('/a?_health_check=1')).toContain('bypass')
    expect(await again('/account/me')).toContain('bypass')
    expect(await again('/a', { cookie: 'session=1' })).toContain('hit')
    expect(await again('/a', { cookie: 'session=1', 'x-user': '1' })).toContain('bypass')
  })

  test('originDirectives and requestDirectives', async () => {
    const { again, status } = await proxied({ originDirectives: 'ignore', requestDirectives: 'ignore', rules: [{ ttl: '1h' }] })
    expect(await again('/a?cache-control=no-store')).toContain('hit')
    expect(await status('/a?cache-control=no-store', { 'cache-control': 'no-cache' })).toContain('hit')
  })

  test('minTtl and maxTtl', async () => {
    const { again } = await proxied({ minTtl: '30s', maxTtl: '1m' })
    expect(await again('/a?cache-control=max-age=1')).toContain('ttl=30')
    expect(await again('/a?cache-control=max-age=9999')).toContain('ttl=60')
  })

  test('contentTypes', async () => {
    const { again } = await proxied({ contentTypes: ['image/*'] })
    expect(await again('/a?content-type=image/png')).toContain('hit')
    expect(await again('/a?content-type=text/html')).toContain('detail=content-type')
  })

  test('setCookie', async () => {
    expect(await (await proxied({})).again('/a?set-cookie=a=1')).toContain('detail=set-cookie')
    expect(await (await proxied({ setCookie: 'store' })).again('/a?set-cookie=a=1')).toContain('hit')
  })

  test('rangeMiss', async () => {
    const { origin, status } = await proxied({ rangeMiss: 'fill', maxObjectSize: '1KiB' })
    await status('/a?status=206&content-range=bytes 0-9/100', { range: 'bytes=0-9' })
    await expect.poll(() => origin.requests.length).toBe(2)
    expect(origin.requests.some(({ rawHeaders }) => !rawHeaders.includes('range'))).toBe(true)
  })

  test('maxVariants', async () => {
    const { again } = await proxied({ maxVariants: 1 })
    expect(await again('/a?vary=x-kind', { 'x-kind': '1' })).toContain('hit')
    expect(await again('/a?vary=x-kind', { 'x-kind': '2' })).toContain('too-many-variants')
  })
})

describe('of a route', () => {
  test('what it names counts there; the rest is that of the section', async () => {
    const { again } = await proxied(
      { rules: [{ ttl: '10s' }], negative: { 404: '20s' }, stale: { whileRevalidate: '5s' } },
      { rules: [{ ttl: '40s' }], negative: { 410: '50s' }, key: { query: 'sorted' } }
    )
    expect(await again('/a')).toContain('ttl=10')
    expect(await again('/other/a')).toContain('ttl=40')
    expect(await again('/a?status=410&cache-control=x')).not.toContain('hit')
    expect(await again('/other/a?status=410&cache-control=x')).toContain('ttl=50')
    expect(await again('/other/a?status=404&cache-control=x')).toContain('ttl=20')
  })

  test('has every key of the section but tiers', async () => {
    const everything = {
      key: { host: false },
      bypass: [{ path: '/x' }],
      originDirectives: 'ignore',
      requestDirectives: 'ignore',
      minTtl: '1s',
      maxTtl: '2s',
      contentTypes: ['a/b'],
      setCookie: 'store',
      rangeMiss: 'fill',
      maxVariants: 2
    } as const
    const older = { rules: [], negative: { 404: '1s' }, stale: { keep: '1h' }, heuristic: false, targetedFields: [], maxObjectSize: '1KiB' } as const
    const { again } = await proxied({}, { ...everything, ...older })
    expect(await again('/other/a?content-type=a/b&last-modified=Mon, 01 Jan 2001 00:00:00 GMT')).toContain('ttl=1')
  })

  test.each<[string, string]>([
    ['tiers: [memory]', 'routes[0].cache.tiers: unknown key'],
    ['rule: []', 'routes[0].cache.rule: unknown key; did you mean "rules"?'],
    ['{ stale: { ifEror: 1h } }', 'routes[0].cache.stale.ifEror: unknown key'],
    ['{ minTtl: 2h, maxTtl: 1h }', 'routes[0].cache.minTtl: is above maxTtl'],
    ['{ key: { query: some } }', 'routes[0].cache.key.query: must be "all", "sorted" or "none"'],
    ['{ key: { cookies: ["a;b"] } }', 'routes[0].cache.key.cookies[0]: is no name of a cookie'],
    ['{ bypass: [{ value: x }] }', 'routes[0].cache.bypass[0]: names none'],
    ['{ maxVariants: 0 }', 'routes[0].cache.maxVariants: '],
    ['maybe', 'routes[0].cache: ']
  ])('%s: %s', async (cache, message) => {
    const written = cache.startsWith('{') || cache === 'maybe' ? cache : `{ ${cache} }`
    const file = tempFile(`pools: { web: { targets: ["http://127.0.0.1:9"] } }\nroutes:\n  - pool: web\n    cache: ${written}\n`)
    await expect(loadConfig(file, {})).rejects.toThrow(message)
  })
})

// They were taken, and could not work.
test.each<[string, string]>([
  ['{ key: { headers: [Host] } }', 'cache.key.headers[0]: host counts by itself'],
  ['{ bypass: [{ header: host }] }', 'cache.bypass[0].header: host counts by itself'],
  ['{ key: { types: [webp] } }', 'cache.key.types[0]: is a media type'],
  ['{ key: { encodings: ["gzip, br"] } }', 'cache.key.encodings[0]: is a content coding'],
  ['{ key: { languages: ["en us"] } }', 'cache.key.languages[0]: is a language tag'],
  ['{ negative: { 304: 1s } }', 'cache.negative'],
  ['{ negative: { 206: 1s } }', 'cache.negative']
])('cache: %s is refused', async (cache, message) => {
  const file = tempFile(`pools: { web: { targets: ["http://127.0.0.1:9"] } }\ncache: ${cache}\n`)
  await expect(loadConfig(file, {})).rejects.toThrow(message)
})
