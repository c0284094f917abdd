import { type Handler, principal, withContext } from '@proxy/pipeline'
import { afterEach, describe, expect, test } from 'vitest'
import { type Bench, startBench, until } from './support.ts'

let bench: Bench
afterEach(() => bench.close())

const alice = { authorization: 'Bearer alice' }

async function get(fields: Record<string, string>): Promise<[string, string]> {
  const answer = await bench.get('/a', fields)
  await bench.middleware.drain()
  return [answer.body.toString(), answer.cacheStatus.replace(/; ttl=\d+/, '')]
}

async function startEcho(control: string): Promise<void> {
  bench = await startBench((request, response) => response.writeHead(200, { 'cache-control': control }).end(`for ${request.headers.authorization ?? 'nobody'}`))
}

describe('requests with Authorization', () => {
  test('are not stored for others', async () => {
    await startEcho('max-age=60')
    expect(await get(alice)).toEqual(['for Bearer alice', 'proxy; fwd=uri-miss; detail=authorization'])
    expect(await get({})).toEqual(['for nobody', 'proxy; fwd=uri-miss; stored'])
  })

  test.each(['public, max-age=60', 's-maxage=60', 'must-revalidate, max-age=60'])('are stored where the origin says so: %s', async (control) => {
    await startEcho(control)
    expect(await get(alice)).toEqual(['for Bearer alice', 'proxy; fwd=uri-miss; stored'])
    expect(await get({ authorization: 'Bearer bob' })).toEqual(['for Bearer alice', 'proxy; hit'])
  })

  test('are answered from what was stored for anybody', async () => {
    await startEcho('max-age=60')
    await get({})
    expect(await get(alice)).toEqual(['for nobody', 'proxy; hit'])
  })

  test('never wait for, or share, a fill', async () => {
    const release: (() => void)[] = []
    bench = await startBench((request, response) => {
      release.push(() => response.writeHead(200, { 'cache-control': 'max-age=60' }).end(`for ${request.headers.authorization ?? 'nobody'}`))
      if (release.length === 3) for (const go of release) go()
    })
    const first = bench.get('/a', alice)
    await until(() => release.length === 1)
    const answers = await Promise.all([first, bench.get('/a'), bench.get('/a', { authorization: 'Bearer bob' })])
    expect(answers.map(({ body }) => body.toString())).toEqual(['for Bearer alice', 'for nobody', 'for Bearer bob'])
  })
})

test('a principal counts as Authorization, although the credential has been removed', async () => {
  const authenticated = (handler: Handler): Handler => {
    return (request) => {
      const id = request.headers['x-user']
      return handler(typeof id === 'string' ? withContext(request, request.context.with(principal, { id, scheme: 'test' })) : request)
    }
  }
  bench = await startBench((request, response) => response.writeHead(200, { 'cache-control': 'max-age=60' }).end(`for ${String(request.headers['x-user'] ?? 'nobody')}`), { wrap: authenticated })
  expect(await get({ 'x-user': 'alice' })).toEqual(['for alice', 'proxy; fwd=uri-miss; detail=authorization'])
  expect(await get({ 'x-user': 'bob' })).toEqual(['for bob', 'proxy; fwd=uri-miss; detail=authorization'])
  expect(await get({})).toEqual(['for nobody', 'proxy; fwd=uri-miss; stored'])
})

test('a cookie set for one client reaches that client alone', async () => {
  bench = await startBench((_, response) => {
    const first = bench.origin.requests.length === 1
    response.writeHead(200, { 'cache-control': 'max-age=60', ...(first && { 'set-cookie': ['session=1', 'b=2'] }) }).end('x')
  })
  expect((await bench.get('/a')).headers['set-cookie']).toEqual(['session=1', 'b=2'])
  expect((await bench.get('/a')).headers['set-cookie']).toBeUndefined()
  await bench.middleware.drain()
  expect((await bench.get('/a')).cacheStatus).toContain('hit')
})
