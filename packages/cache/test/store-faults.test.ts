import { ProxyError } from '@proxy/pipeline'
import { afterEach, describe, expect, test } from 'vitest'
import { sampleBytes } from '../src/conformance.ts'
import { MemoryStore } from '../src/memory-store.ts'
import type { CacheWriter } from '../src/store.ts'
import { type Bench, digest, settle, startBench } from './support.ts'

let bench: Bench
afterEach(() => bench.close())

const bytes = sampleBytes(300_000)
const down = new Error('down')

async function start(options: Parameters<typeof startBench>[1] = {}): Promise<void> {
  bench = await startBench((request, response) => {
    if (request.headers['if-none-match'] === '"v1"') response.writeHead(304, { 'cache-control': 'max-age=60' }).end()
    else response.writeHead(200, { 'cache-control': 'max-age=60', etag: '"v1"' }).end(bytes)
  }, options)
}

async function expectWhole(cacheStatus: RegExp): Promise<void> {
  const answer = await bench.get('/a')
  expect([answer.status, digest(answer.body)]).toEqual([200, digest(bytes)])
  expect(answer.cacheStatus).toMatch(cacheStatus)
  await bench.middleware.drain()
}

describe('whatever the store does, clients get whole answers', () => {
  test('get rejects', async () => {
    await start()
    await expectWhole(/uri-miss/)
    bench.store.breakGet = () => down
    await expectWhole(/uri-miss/)
    expect(bench.storeErrors).toEqual([down])
    bench.store.breakGet = undefined
    await expectWhole(/hit/)
  })

  test('get throws, put throws', async () => {
    await start()
    bench.store.get = () => {
      throw down
    }
    bench.store.put = () => {
      throw down
    }
    await expectWhole(/^proxy; fwd=uri-miss; ttl=60$/)
    expect(bench.storeErrors).toEqual([down, down])
  })

  // A body that did not open was left in the store, and cost every later request the same detour.
  test('open rejects: the entry is a miss, and is not found again', async () => {
    await start()
    await expectWhole(/uri-miss/)
    bench.store.breakOpen = () => down
    await expectWhole(/fwd=uri-miss; stored/)
    bench.store.breakOpen = undefined
    await expectWhole(/hit/)
    expect(bench.storeErrors).toEqual([down])
    expect(bench.store.calls.filter((call) => call === 'delete').length).toBe(1)
    expect(bench.origin.requests.length).toBe(2)
    expect(bench.origin.requests[1]?.rawHeaders.join().toLowerCase()).not.toContain('if-none-match')
  })

  // The entry, used up by then, was opened a second time.
  test('open rejects after the origin has confirmed the entry: the whole is fetched', async () => {
    await start()
    await expectWhole(/uri-miss/)
    bench.clock.advance(61_000)
    bench.store.breakOpen = () => down
    await expectWhole(/fwd=stale; stored/)
    bench.store.breakOpen = undefined
    await expectWhole(/hit/)
    expect(bench.origin.requests.length).toBe(3)
  })

  test('open rejects for a range', async () => {
    await start()
    await expectWhole(/uri-miss/)
    bench.store.breakOpen = () => down
    const answer = await bench.get('/a', { range: 'bytes=0-9' })
    // The origin of this test knows no ranges.
    expect([answer.status, digest(answer.body)]).toEqual([200, digest(bytes)])
  })

  test('a body breaks off in the middle: the client is cut, never served a part as the whole', async () => {
    await start()
    await expectWhole(/uri-miss/)
    const get = bench.store.inner.get.bind(bench.store.inner)
    bench.store.inner.get = async (key) => {
      const entry = await get(key)
      return (
        entry && {
          version: entry.version,
          meta: entry.meta,
          discard() {},
          open: async () => ({
            start(sink) {
              sink.data(bytes.subarray(0, 100_000))
              setImmediate(() => sink.error(new ProxyError('block 2 is damaged', { code: 'STORE_BODY_BROKEN', status: 502, source: 'proxy' })))
              return { resume() {}, abort() {} }
            },
            discard() {}
          })
        }
      )
    }
    await expect(bench.get('/a')).rejects.toThrow()
  })

  test('touch rejects, or finds another version: this client is answered, the next asks again', async () => {
    await start()
    await expectWhole(/uri-miss/)
    bench.clock.advance(61_000)
    bench.store.breakTouch = () => down
    await expectWhole(/fwd-status=304/)
    await expectWhole(/fwd-status=304/)
    bench.store.breakTouch = undefined
    bench.store.inner.touch = () => Promise.resolve(false)
    await expectWhole(/fwd-status=304/)
    await expectWhole(/fwd-status=304/)
    expect(bench.storeErrors).toEqual([down, down])
  })

  test.each<[string, (writer: CacheWriter) => CacheWriter]>([
    ['commit is false', (writer) => ({ ...around(writer), commit: () => Promise.resolve(false) })],
    ['commit rejects', (writer) => ({ ...around(writer), commit: () => Promise.reject(down) })],
    [
      'write throws',
      (writer) => ({
        ...around(writer),
        write: () => {
          throw down
        }
      })
    ],
    ['the writer never drains', (writer) => ({ ...around(writer), write: () => false, drained: () => new Promise(() => {}) })],
    ['the writer drains late every time', (writer) => ({ ...around(writer), write: (chunk) => writer.write(chunk) && false, drained: () => new Promise((resolve) => setImmediate(resolve)) })]
  ])('%s', async (what, wrap) => {
    const drains = what.startsWith('the writer drains late')
    // On a busy machine, a turn of the event loop takes longer than the time that a stalled writer is given here.
    await start({ storeStallMs: drains ? 10_000 : 20 })
    bench.store.onPut = wrap
    await expectWhole(/uri-miss/)
    await expectWhole(drains ? /hit/ : /uri-miss/)
  })

  test('the store is full', async () => {
    await start({ store: new MemoryStore({ maxBytes: 100_000 }) })
    await expectWhole(/uri-miss/)
    await expectWhole(/uri-miss/)
  })

  test('the store is slow: nothing is lost, nothing is done twice', async () => {
    await start()
    const { inner } = bench.store
    const get = inner.get.bind(inner)
    inner.get = async (key, want) => {
      await settle(20)
      return get(key, want)
    }
    await Promise.all(Array.from({ length: 5 }, () => expectWhole(/uri-miss|hit/)))
    expect(bench.origin.requests.length).toBe(1)
  })
})

function around(writer: CacheWriter): CacheWriter {
  return { write: (chunk) => writer.write(chunk), drained: () => writer.drained(), commit: () => writer.commit(), abort: () => writer.abort() }
}

describe('what is refused before the first byte', () => {
  test('and is larger than the window is nobody’s but the client’s who asked', async () => {
    bench = await startBench((_, response) => response.writeHead(200, { 'cache-control': 'max-age=60', 'content-length': bytes.length }).end(bytes), {
      store: new MemoryStore({ maxEntryBytes: 10_000 }),
      windowBytes: 100_000
    })
    const answers = await Promise.all(Array.from({ length: 3 }, () => bench.get('/a')))
    expect(answers.map(({ body }) => digest(body))).toEqual(answers.map(() => digest(bytes)))
    expect(answers.filter(({ cacheStatus }) => cacheStatus.endsWith('detail=refused')).length).toBe(1)
    expect(answers.filter(({ cacheStatus }) => cacheStatus.endsWith('detail=not-shared')).length).toBe(2)
  })

  test('and fits the window is shared all the same', async () => {
    bench = await startBench((_, response) => setImmediate(() => response.writeHead(200, { 'cache-control': 'max-age=60', 'content-length': bytes.length }).end(bytes)), {
      store: new MemoryStore({ maxEntryBytes: 10_000 })
    })
    const answers = await Promise.all(Array.from({ length: 3 }, () => bench.get('/a')))
    expect(answers.map(({ body }) => digest(body))).toEqual(answers.map(() => digest(bytes)))
    expect(answers[0]?.cacheStatus).not.toContain('stored')
  })
})
