import { createHeaders, type Handler } from '@proxy/pipeline'
import { createFakeClock } from '@proxy/testing'
import { describe, expect, test } from 'vitest'
import { cache, MemoryStore, type PreloadResult, preload } from '../src/index.ts'
import { headers, PushSource, settle } from './support.ts'

function world() {
  const store = new MemoryStore()
  const asked: string[] = []
  const origin: Handler = async ({ scheme, authority, target, headers: fields }) => {
    asked.push(`${scheme}://${authority}${target}`)
    if (target === '/fails') throw new Error('away')
    const cacheControl = target === '/private' ? 'private' : 'max-age=60'
    const status = target === '/500' ? 500 : 200
    return { status, headers: headers({ 'cache-control': cacheControl, ...(fields.accept !== undefined && { vary: 'accept' }) }), body: Buffer.from(`about ${target}`) }
  }
  const middleware = cache({ store, clock: createFakeClock() })
  return { asked, handler: middleware(origin), middleware, store }
}

describe('preload', () => {
  test('asks for each URL once, and says what is in the cache then', async () => {
    const { asked, handler } = world()
    const results: PreloadResult[] = []
    const urls = ['http://a.example/1', 'https://A.example:8443/2?x=1#fragment', 'http://a.example/1', 'http://a.example/private', 'http://a.example/fails', 'http://a.example/500']
    const summary = await preload(handler, urls, { concurrency: 1, onResult: (result) => results.push(result) })
    expect(summary).toEqual({ requested: 6, cached: 3, notStored: 1, failed: 2 })
    expect(asked).toEqual(['http://a.example/1', 'https://a.example:8443/2?x=1', 'http://a.example/private', 'http://a.example/fails', 'http://a.example/500'])
    expect(results[0]).toEqual({ url: urls[0], status: 200, cache: 'miss', cached: true, bytes: 8 })
    expect(results[2]).toMatchObject({ cache: 'hit', cached: true })
    expect(results[4]).toMatchObject({ cached: false, error: { message: 'away' } })
  })

  test('with fields, for a variant', async () => {
    const { handler } = world()
    await preload(handler, ['http://a.example/1'], { headers: headers({ accept: 'image/avif' }) })
    const results: PreloadResult[] = []
    await preload(handler, ['http://a.example/1'], { headers: { accept: 'image/avif' }, onResult: (result) => results.push(result) })
    await preload(handler, ['http://a.example/1'], { headers: { accept: 'image/png' }, onResult: (result) => results.push(result) })
    expect(results.map(({ cache: what }) => what)).toEqual(['hit', 'miss'])
  })

  test('never more than so many at a time, and reads no more of the list than that', async () => {
    let running = 0
    let most = 0
    let read = 0
    const finish: (() => void)[] = []
    const handler: Handler = async () => {
      running++
      most = Math.max(most, running)
      await new Promise<void>((resolve) => finish.push(resolve))
      running--
      return { status: 200, headers: createHeaders(), body: null }
    }
    async function* list(): AsyncGenerator<string> {
      for (let i = 0; i < 20; i++) {
        read++
        yield `http://a.example/${i}`
      }
    }
    const done = preload(handler, list(), { concurrency: 3 })
    await settle()
    expect([most, read]).toEqual([3, 3])
    let ended = false
    void done.then(() => {
      ended = true
    })
    while (!ended) {
      finish.shift()?.()
      await settle(1)
    }
    expect([most, read, (await done).requested]).toEqual([3, 20, 20])
  })

  test('ends early when told to', async () => {
    const end = new AbortController()
    const source = new PushSource()
    const asked: string[] = []
    const handler: Handler = async ({ target }) => {
      asked.push(target)
      return { status: 200, headers: createHeaders(), body: source }
    }
    const done = preload(handler, ['http://a.example/1', 'http://a.example/2'], { concurrency: 1, signal: end.signal })
    await settle()
    source.push('x')
    end.abort()
    expect(await done).toMatchObject({ requested: 1, failed: 1 })
    expect([source.aborted, asked]).toEqual([true, ['/1']])
  })

  test('what a cache nearer to the origin has stored is not stored here, and a list that is left early is closed', async () => {
    const summary = await preload(async () => ({ status: 200, headers: { 'cache-status': 'other; fwd=miss; stored, proxy; fwd=uri-miss; detail=no-store' }, body: null }), ['http://a.example/'])
    expect(summary).toMatchObject({ cached: 0, notStored: 1 })
    let closed = false
    function* list(): Generator<string> {
      try {
        for (;;) yield 'http://a.example/'
      } finally {
        closed = true
      }
    }
    const end = new AbortController()
    await preload(world().handler, list(), { signal: end.signal, concurrency: 1, onResult: () => end.abort() })
    expect(closed).toBe(true)
  })

  test.each(['/a', 'ftp://a.example/', 'http://', 'nonsense'])('%j is refused', async (url) => {
    await expect(preload(world().handler, [url])).rejects.toThrow(TypeError)
  })
  test.each([0, -1, 1.5, Number.NaN])('so is a concurrency of %d', async (concurrency) => {
    await expect(preload(world().handler, [], { concurrency })).rejects.toThrow('concurrency')
  })
})
