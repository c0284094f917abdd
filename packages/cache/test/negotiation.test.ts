import { afterEach, describe, expect, test } from 'vitest'
import { Negotiation } from '../src/negotiation.ts'
import { type Bench, headers, startBench } from './support.ts'

let bench: Bench | undefined
afterEach(async () => {
  await bench?.close()
  bench = undefined
})

describe('what counts of a field', () => {
  const negotiation = new Negotiation({ encodings: ['br', 'gzip'], types: ['image/avif', 'image/webp'], languages: ['en', 'de', 'pt-BR', 'zh-hant'] })
  test.each([
    ['accept-encoding', 'gzip, deflate, br, zstd', 'br, gzip'],
    ['accept-encoding', 'GZIP;q=1.0, identity', 'gzip'],
    ['accept-encoding', 'br;q=0, *', 'gzip'],
    ['accept-encoding', '*', 'br, gzip'],
    ['accept-encoding', '*;q=0', ''],
    ['accept-encoding', 'identity', ''],
    ['accept-encoding', '', ''],
    ['accept-encoding', 'br;q=2, gzip;q=x', ''],
    ['accept', 'image/avif,image/webp,image/apng,*/*;q=0.8', 'image/avif, image/webp'],
    ['accept', 'image/webp;q=0.5', 'image/webp'],
    ['accept', 'image/webp;q=0, image/avif;v=b3;q=0.9', 'image/avif'],
    // An old browser that says this has never heard of either.
    ['accept', '*/*', ''],
    ['accept', 'image/*', ''],
    ['accept-language', 'en, de', 'en'],
    ['accept-language', 'fr;q=0.5, de;q=1.0', 'de'],
    ['accept-language', 'de-AT, en;q=0.9', 'de'],
    ['accept-language', 'zh-Hant-TW', 'zh-hant'],
    ['accept-language', 'pt, en;q=0.5', 'pt-br'],
    ['accept-language', 'fr, *', ''],
    ['accept-language', 'de;q=0, en;q=0.1', 'en'],
    ['accept-language', 'd', '']
  ])('%s: %s is %j', (name, value, expected) => expect(negotiation.read(name, value)).toBe(expected))

  test('without the field nothing of the list; of other fields all', () => {
    expect(negotiation.read('accept', undefined)).toBe('')
    expect(negotiation.read('x-kind', 'a')).toBeUndefined()
    expect(new Negotiation().read('accept', 'a/b')).toBeUndefined()
  })

  test('an empty list is refused', () => expect(() => new Negotiation({ types: [] })).toThrow('key.types'))

  test('a long value takes no time', () => {
    const value = 'de-'.repeat(20_000)
    const started = performance.now()
    expect(negotiation.read('accept-language', value)).toBe('de')
    expect(performance.now() - started).toBeLessThan(1000)
  })
})

async function start(): Promise<Bench> {
  bench = await startBench(
    (request, outgoing) => {
      const kind = /image\/webp/.test(request.headers.accept ?? '') ? 'webp' : 'png'
      outgoing.writeHead(200, { 'cache-control': 'max-age=60', vary: 'Accept', 'content-type': `image/${kind}` }).end(kind)
    },
    { key: { types: ['image/webp'], languages: ['en', 'de'] } }
  )
  return bench
}

describe('in the cache', () => {
  test('clients that take the same of the list share a variant, and the origin chooses by what the key says', async () => {
    const { get, origin } = await start()
    const chrome = 'image/avif,image/webp,image/apng,*/*;q=0.8'
    await get('/a', { accept: chrome })
    const other = await get('/a', { accept: 'image/webp,*/*' })
    expect([other.cacheStatus, other.body.toString()]).toEqual([expect.stringContaining('hit'), 'webp'])
    const old = await get('/a', { accept: '*/*' })
    expect([old.cacheStatus, old.body.toString()]).toEqual([expect.stringContaining('vary-miss'), 'png'])
    expect((await get('/a')).body.toString()).toBe('png')
    expect(origin.requests.length).toBe(2)
    const accepts = origin.requests.map(({ rawHeaders }) => rawHeaders[rawHeaders.findIndex((name) => name.toLowerCase() === 'accept') + 1])
    expect(accepts[0]).toBe('image/webp, */*;q=0.1')
    expect(origin.requests[1]?.rawHeaders.map((each) => each.toLowerCase())).not.toContain('accept')
  })

  test('a part is asked for by the same fields', async () => {
    const { get, origin } = await start()
    await get('/a', { accept: 'image/avif,image/webp', range: 'bytes=0-1' })
    expect(origin.requests[0]?.rawHeaders).toContain('image/webp, */*;q=0.1')
    expect((await get('/a', { accept: 'image/webp' })).cacheStatus).toContain('hit')
  })

  // It was asked by what the client sent, and relabelled what had been chosen by what counts of that.
  test('a HEAD that renews is asked by the same fields', async () => {
    const { ask, clock, get, origin } = await start()
    await get('/a', { accept: 'image/*' })
    clock.advance(61_000)
    await ask('/a', { method: 'HEAD', headers: { accept: 'image/*' } })
    expect(origin.requests[1]?.rawHeaders.map((each) => each.toLowerCase())).not.toContain('accept')
  })

  test('what goes by the cache is as it was', async () => {
    const { ask, origin } = await start()
    await ask('/a', { method: 'POST', headers: { accept: 'image/avif,image/webp' } })
    expect(origin.requests[0]?.rawHeaders).toContain('image/avif,image/webp')
  })
})

test('fields are left alone where there is no list', () => {
  const fields = headers({ accept: 'a/b', 'accept-encoding': 'zstd' })
  new Negotiation({ languages: ['de'] }).apply(fields)
  expect({ ...fields }).toEqual({ accept: 'a/b', 'accept-encoding': 'zstd' })
})

// A client that takes no coding was given one: without the field an origin may send any.
test('where no coding of the list counts, the origin is told so', () => {
  for (const given of [{}, { 'accept-encoding': 'identity' }, { 'accept-encoding': 'zstd' }]) {
    const fields = headers(given as Record<string, string>)
    new Negotiation({ encodings: ['br'] }).apply(fields)
    expect({ ...fields }).toEqual({ 'accept-encoding': 'identity' })
  }
})
