import { afterEach, expect, test } from 'vitest'
import { type Bench, startBench } from './support.ts'

let bench: Bench
afterEach(() => bench.close())

/** An origin that answers by Accept-Language. */
async function startLanguages(fields: () => Record<string, string> = () => ({})): Promise<void> {
  bench = await startBench((request, response) => {
    response.writeHead(200, { 'cache-control': 'max-age=60', vary: 'Accept-Language', ...fields() }).end(`in ${request.headers['accept-language'] ?? 'nothing'}`)
  })
}

async function ask(language: string | undefined): Promise<[string, string]> {
  const answer = await bench.get('/a', language === undefined ? {} : { 'accept-language': language })
  await bench.middleware.drain()
  return [answer.body.toString(), answer.cacheStatus.replace(/; ttl=\d+/, '')]
}

test('each variant is fetched once, and found by the fields that selected it', async () => {
  await startLanguages()
  expect(await ask('en')).toEqual(['in en', 'proxy; fwd=uri-miss; stored'])
  expect(await ask('de')).toEqual(['in de', 'proxy; fwd=vary-miss; stored'])
  expect(await ask(undefined)).toEqual(['in nothing', 'proxy; fwd=vary-miss; stored'])
  expect(await ask('en')).toEqual(['in en', 'proxy; hit'])
  expect(await ask('de')).toEqual(['in de', 'proxy; hit'])
  expect(await ask(undefined)).toEqual(['in nothing', 'proxy; hit'])
  expect(bench.origin.requests.length).toBe(3)
})

test('values that mean the same are one variant', async () => {
  await startLanguages()
  await ask('en, de')
  expect(await ask('en,  de')).toEqual(['in en, de', 'proxy; hit'])
  // RFC 9110 section 12.5.4: the order of languages says nothing, their weights do.
  expect(await ask('de, EN')).toEqual(['in en, de', 'proxy; hit'])
  expect(await ask('de, en;q=0.9')).toEqual(['in de, en;q=0.9', 'proxy; fwd=vary-miss; stored'])
})

test('a change of Vary starts over', async () => {
  let vary = 'Accept-Language'
  await startLanguages(() => ({ vary }))
  await ask('en')
  vary = 'Accept-Language, User-Agent'
  expect(await ask('de')).toEqual(['in de', 'proxy; fwd=vary-miss; stored'])
  expect(await ask('de')).toEqual(['in de', 'proxy; hit'])
  expect(await ask('en')).toEqual(['in en', 'proxy; fwd=vary-miss; stored'])
})

test('the order and case of the fields is no change', async () => {
  let vary = 'Accept-Language, User-Agent'
  await startLanguages(() => ({ vary }))
  await ask('en')
  vary = 'user-agent,accept-language'
  await ask('de')
  expect(await ask('en')).toEqual(['in en', 'proxy; hit'])
})

test('a newer answer without Vary is for everybody', async () => {
  let vary: Record<string, string> = {}
  bench = await startBench((_, response) => response.writeHead(200, { 'cache-control': 'max-age=60', ...vary }).end(JSON.stringify(vary)))
  vary = { vary: 'accept-language' }
  await ask('en')
  vary = {}
  expect(await ask('de')).toEqual(['{}', 'proxy; fwd=vary-miss; stored'])
  expect(await ask('en')).toEqual(['{}', 'proxy; hit'])
})

test('an answer with Vary takes the place of one without', async () => {
  const fields: Record<string, string> = {}
  bench = await startBench((request, response) => response.writeHead(200, { 'cache-control': 'max-age=60', ...fields }).end(`in ${request.headers['accept-language']}`))
  await ask('en')
  fields.vary = 'Accept-Language'
  bench.clock.advance(61_000)
  expect(await ask('de')).toEqual(['in de', 'proxy; fwd=stale; stored'])
  expect(await ask('en')).toEqual(['in en', 'proxy; fwd=vary-miss; stored'])
})

test('variants are confirmed one by one', async () => {
  bench = await startBench((request, response) => {
    if (request.headers['if-none-match'] !== undefined) response.writeHead(304, { 'cache-control': 'max-age=60' }).end()
    else response.writeHead(200, { 'cache-control': 'max-age=60', vary: 'Accept-Language', etag: `"${request.headers['accept-language']}"` }).end(`in ${request.headers['accept-language']}`)
  })
  await ask('en')
  await ask('de')
  bench.clock.advance(61_000)
  expect(await ask('en')).toEqual(['in en', 'proxy; fwd=stale; fwd-status=304'])
  expect(await ask('en')).toEqual(['in en', 'proxy; hit'])
  expect(await ask('de')).toEqual(['in de', 'proxy; fwd=stale; fwd-status=304'])
  expect(bench.origin.requests[2]?.rawHeaders.join()).toContain('"en"')
})

test('negative answers vary too', async () => {
  bench = await startBench((request, response) => {
    const found = request.headers['accept-language'] === 'en'
    response.writeHead(found ? 200 : 404, { 'cache-control': 'max-age=60', vary: 'Accept-Language' }).end(found ? 'yes' : 'no')
  })
  expect((await ask('de'))[0]).toBe('no')
  expect((await ask('en'))[0]).toBe('yes')
  expect(await ask('de')).toEqual(['no', 'proxy; hit; detail=negative'])
  expect(await ask('en')).toEqual(['yes', 'proxy; hit'])
})

// The index was written anew after one failed lookup of a variant, and all other variants were lost with it.
test('a variant that cannot be looked up does not cost the others', async () => {
  await startLanguages()
  await ask('en')
  await ask('de')
  bench.store.breakGet = (key) => (key.includes('\n') ? new Error('down') : undefined)
  expect(await ask('de')).toEqual(['in de', 'proxy; fwd=vary-miss; stored'])
  bench.store.breakGet = undefined
  expect(await ask('en')).toEqual(['in en', 'proxy; hit'])
  expect(bench.storeErrors.length).toBe(1)
})
