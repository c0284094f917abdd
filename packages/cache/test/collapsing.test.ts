import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { describe, expect, test } from 'vitest'
import { sampleBytes } from '../src/conformance.ts'
import { MemoryStore } from '../src/memory-store.ts'
import type { CacheWriter } from '../src/store.ts'
import { readRest, startHeld } from './held-bench.ts'
import { withoutReadFrom } from './shared-body-setup.ts'
import { type ClientAnswer, digest, openAnswer, startBench, until } from './support.ts'

const bytes = sampleBytes(500_000)

/** All have got `bytes`, one of them marked as `first` and the others as `others`. */
function expectShared(answers: readonly ClientAnswer[], first: string, others: string): void {
  expect(new Set(answers.map(({ body }) => digest(body)))).toEqual(new Set([digest(bytes)]))
  expect(answers.map(({ cacheStatus }) => cacheStatus).sort()).toEqual([first, ...answers.slice(1).map(() => others)].sort())
}

describe('many ask for one thing', () => {
  test('a hundred clients, one request to the origin, every byte the same', async () => {
    const held = await startHeld()
    const clients = await held.crowd(100)
    held.answer(0, { 'cache-control': 'max-age=60', 'content-length': bytes.length }).end(bytes)
    expectShared(await Promise.all(clients), 'proxy; fwd=uri-miss; stored; ttl=60', 'proxy; fwd=uri-miss; collapsed; ttl=60')
    expect(held.asked.length).toBe(1)
  })

  test('a joiner gets what has arrived, and then the rest as it comes', async () => {
    const held = await startHeld()
    const leader = held.open('/a')
    await held.originHas(1)
    const response = held.answer(0)
    response.write('one')
    const first = await leader
    const second = await held.open('/a')
    // The origin has not finished: this is the joiner reading from the running fill.
    const [early] = (await once(second, 'data')) as [Buffer]
    expect(early.toString()).toBe('one')
    response.end('two')
    expect((await readRest(second)).toString()).toBe('two')
    expect((await readRest(first)).toString()).toBe('onetwo')
    expect(held.asked.length).toBe(1)
  })

  // Who joined a long answer got what had long been stale, and no Age.
  test('who comes after the header gets an answer that has an age, and only while it is fresh', async () => {
    const held = await startHeld()
    const leader = held.open('/a')
    await held.originHas(1)
    const response = held.answer(0, { 'cache-control': 'max-age=60' })
    response.write('one')
    const first = await leader
    held.bench.clock.advance(10_000)
    const second = await held.open('/a')
    expect([second.headers.age, second.headers['cache-status']]).toEqual(['10', 'proxy; fwd=uri-miss; collapsed; ttl=50'])
    // Too old for this client alone.
    const third = held.get('/a', { 'cache-control': 'max-age=9' })
    await held.originHas(2)
    held.answer(1).end('other')
    expect((await third).body.toString()).toBe('other')

    held.bench.clock.advance(60_000)
    const later = [held.get('/a'), held.get('/a')]
    await held.originHas(3)
    held.answer(2).end('new')
    for (const { body } of await Promise.all(later)) expect(body.toString()).toBe('new')
    response.end('two')
    for (const answer of [first, second]) expect((await readRest(answer)).toString()).toMatch(/two$/)
    expect(held.asked.length).toBe(3)
  })

  test('different things do not wait for each other', async () => {
    const held = await startHeld()
    const [one, two] = [held.get('/a'), held.get('/b')]
    await held.originHas(2)
    held.answer(1).end('x')
    held.answer(0).end('x')
    await Promise.all([one, two])
  })

  test('a finished fill can be joined until its commit is settled', async () => {
    const held = await startHeld()
    const commit = Promise.withResolvers<void>()
    held.bench.store.onPut = (writer): CacheWriter => ({
      ...withoutReadFrom(writer),
      commit: async () => {
        await commit.promise
        return writer.commit()
      }
    })
    const first = held.get('/a')
    await held.originHas(1)
    held.answer(0).end('text')
    await first
    const second = await held.get('/a')
    expect([second.body.toString(), second.cacheStatus]).toEqual(['text', 'proxy; fwd=uri-miss; collapsed; ttl=60'])
    commit.resolve()
    await held.bench.middleware.drain()
    expect((await held.get('/a')).cacheStatus).toContain('hit')
    expect(held.asked.length).toBe(1)
  })
})

describe('readers of different speed', () => {
  const large = sampleBytes(10_000_000)

  test('the leader gets all while a joiner reads nothing, and the joiner gets all later', async () => {
    const held = await startHeld({ store: new MemoryStore({ maxEntryBytes: 32 << 20 }) })
    const leader = held.get('/a')
    await held.originHas(1)
    const response = held.answer(0, { 'cache-control': 'max-age=60', 'content-length': large.length })
    response.write(large.subarray(0, 1000))
    const joiner = await held.open('/a')
    response.end(large.subarray(1000))
    expect(digest((await leader).body)).toBe(digest(large))
    expect(digest(await readRest(joiner))).toBe(digest(large))
    expect(held.asked.length).toBe(1)
  })

  test('a joiner gets all while the leader reads nothing', async () => {
    const held = await startHeld({ store: new MemoryStore({ maxEntryBytes: 32 << 20 }) })
    const opening = held.open('/a')
    await held.originHas(1)
    const response = held.answer(0)
    response.write(large.subarray(0, 1000))
    const leader = await opening
    const joiner = held.get('/a')
    response.end(large.subarray(1000))
    expect(digest((await joiner).body)).toBe(digest(large))
    expect(digest(await readRest(leader))).toBe(digest(large))
    expect(held.asked.length).toBe(1)
  })

  test('the store refuses in the middle: who reads goes on', async () => {
    const held = await startHeld({ store: new MemoryStore({ maxEntryBytes: 1 << 20 }) })
    const clients = await held.crowd(2)
    held.answer(0).end(large)
    for (const { body } of await Promise.all(clients)) expect(digest(body)).toBe(digest(large))
    expect(held.asked.length).toBe(1)
    await held.bench.middleware.drain()
    expect((await held.askedAnew()).cacheStatus).toContain('uri-miss')
  })
})

// Each time, those who read it together were cut when it had become too much, all but the fastest of them.
test('a body of unknown length that was too large is not shared the next time, and is again once it was not', async () => {
  const held = await startHeld({ maxObjectBytes: 100_000 })
  const first = held.get('/a')
  await held.originHas(1)
  held.answer(0, { 'cache-control': 'max-age=60' }).end(Buffer.alloc(200_000))
  expect((await first).body.length).toBe(200_000)
  for (const round of [1, 3]) {
    const clients = [held.get('/a'), held.get('/a')]
    await held.originHas(round + 2)
    for (const i of [round, round + 1]) held.answer(i, { 'cache-control': 'max-age=60' }).end(Buffer.alloc(200_000))
    expect((await Promise.all(clients)).map(({ body }) => body.length)).toEqual([200_000, 200_000])
  }
  const small = held.get('/a')
  await held.originHas(6)
  held.answer(5, { 'cache-control': 'max-age=1' }).end('small')
  expect((await small).body.toString()).toBe('small')
  await held.bench.middleware.drain()
  held.bench.clock.advance(2000)
  const clients = await held.crowd(3)
  held.answer(6).end('shared')
  expect((await Promise.all(clients)).map(({ body }) => body.toString())).toEqual(['shared', 'shared', 'shared'])
  expect(held.asked.length).toBe(7)
})

describe('what turns out not to be for all', () => {
  test.each<[string, Record<string, string>]>([
    ['private', { 'cache-control': 'private, max-age=60' }],
    ['no-store', { 'cache-control': 'no-store' }],
    ['a cookie', { 'cache-control': 'max-age=60', 'set-cookie': 'session=1' }],
    ['Vary: *', { 'cache-control': 'max-age=60', vary: '*' }],
    ['larger than the cache takes', { 'cache-control': 'max-age=60', 'content-length': '5' }]
  ])('%s: everybody gets an answer of their own', async (_, fields) => {
    const held = await startHeld({ maxObjectBytes: 4 })
    const clients = await held.crowd(5)
    held.answer(0, fields).end('own-0')
    await held.originHas(5)
    for (let i = 1; i < 5; i++) held.answer(i, fields).end(`own-${i}`)
    const answers = await Promise.all(clients)
    expect(answers.map(({ body }) => body.toString()).sort()).toEqual(['own-0', 'own-1', 'own-2', 'own-3', 'own-4'])
    expect(answers.filter(({ cacheStatus }) => cacheStatus.endsWith('detail=not-shared')).length).toBe(4)
  })

  test('another variant: who matches the leader shares, the others share one fill for each variant', async () => {
    const held = await startHeld()
    const languages = ['en', 'de', 'en', 'de', 'en', 'fr']
    const clients = languages.map((language) => held.get('/a', { 'accept-language': language }))
    await held.cacheHas(6)
    const respond = (n: number): void => {
      const language = held.asked[n]?.request.headers['accept-language']
      held.answer(n, { 'cache-control': 'max-age=60', vary: 'Accept-Language' }).end(`in ${language}`)
    }
    respond(0)
    await held.originHas(3)
    respond(1)
    respond(2)
    const answers = await Promise.all(clients)
    expect(answers.map(({ body }) => body.toString())).toEqual(languages.map((language) => `in ${language}`))
    expect(held.asked.length).toBe(3)
  })
})

describe('who joins', () => {
  test('a variant that is being fetched is found under its own key, too', async () => {
    const held = await startHeld()
    const first = held.open('/a', { headers: { 'accept-language': 'en' } })
    await held.originHas(1)
    const response = held.answer(0, { 'cache-control': 'max-age=60', vary: 'Accept-Language' })
    response.write('one')
    const leader = await first
    // The base record is there by now, the variant is not.
    const second = await held.open('/a', { headers: { 'accept-language': 'en' } })
    expect(second.headers['cache-status']).toBe('proxy; fwd=vary-miss; collapsed; ttl=60')
    response.end('two')
    expect([(await readRest(leader)).toString(), (await readRest(second)).toString()]).toEqual(['onetwo', 'onetwo'])
    expect(held.asked.length).toBe(1)
  })

  test('HEAD and conditions are answered from the fill of a GET; a range asks for itself', async () => {
    const held = await startHeld()
    const leader = held.get('/a')
    await held.originHas(1)
    const head = held.bench.ask('/a', { method: 'HEAD' })
    const conditional = held.get('/a', { 'if-none-match': '"v1"' })
    await held.cacheHas(3)
    const range = held.get('/a', { range: 'bytes=0-1' })
    await held.originHas(2)
    held.answer(1, { 'content-range': 'bytes 0-1/4' }, 206).end('te')
    held.answer(0, { 'cache-control': 'max-age=60', etag: '"v1"', 'content-length': 4 }).end('text')
    const answers = await Promise.all([leader, head, conditional, range])
    expect(answers.map(({ status, body }) => [status, body.toString()])).toEqual([
      [200, 'text'],
      [200, ''],
      [304, ''],
      [206, 'te']
    ])
    expect(answers[1]?.headers['content-length']).toBe('4')
    expect(held.asked.length).toBe(2)
  })

  test('no-cache never joins, and can be joined', async () => {
    const held = await startHeld()
    const plain = held.get('/a')
    await held.originHas(1)
    const reload = held.get('/a', { 'cache-control': 'no-cache' })
    await held.originHas(2)
    const joiner = held.get('/a')
    await held.cacheHas(3)
    held.answer(0).end('first')
    held.answer(1).end('second')
    expect((await Promise.all([plain, reload, joiner])).map(({ body }) => body.toString())).toEqual(['first', 'second', 'first'])
    const reloading = held.get('/b', { 'cache-control': 'no-cache' })
    await held.originHas(3)
    const joining = held.get('/b')
    await held.cacheHas(5)
    held.answer(2).end('b')
    expect((await Promise.all([reloading, joining])).map(({ body }) => body.toString())).toEqual(['b', 'b'])
  })

  test('a stale entry is confirmed once for all who wait', async () => {
    const held = await startHeld()
    await held.staleEntry(bytes)
    const clients = await held.crowd(10)
    held.answer(1, { etag: '"v1"' }, 304).end()
    expectShared(await Promise.all(clients), 'proxy; fwd=stale; fwd-status=304; ttl=60', 'proxy; fwd=stale; collapsed; ttl=60')
    expect(held.asked.length).toBe(2)
  })

  test('a stale entry turns out to be private now: each asks for itself', async () => {
    const held = await startHeld()
    await held.staleEntry('text')
    const clients = await held.crowd(3)
    held.answer(1, { 'cache-control': 'private' }, 304).end()
    await held.originHas(4)
    held.answer(2, { 'cache-control': 'private' }).end('own')
    held.answer(3, { 'cache-control': 'private' }).end('own')
    expect((await Promise.all(clients)).map(({ body }) => body.toString()).sort()).toEqual(['own', 'own', 'text'])
  })

  test('the bytes of a confirmed entry are gone: one more fill for all', async () => {
    const held = await startHeld()
    await held.staleEntry('text')
    held.bench.store.breakOpen = () => new Error('gone')
    const clients = await held.crowd(5)
    held.answer(1, {}, 304).end()
    await held.originHas(3)
    held.bench.store.breakOpen = undefined
    held.answer(2).end('again')
    expect((await Promise.all(clients)).map(({ body }) => body.toString())).toEqual(Array.from({ length: 5 }, () => 'again'))
    expect(held.asked.length).toBe(3)
  })
})

// Over a store that gives nothing of a write under way, each of those who came after the window had passed asked the origin for itself, once it had waited long enough.
test('those who wait in vain for what is being stored join one fetch that is begun anew', async () => {
  const body = Buffer.alloc(400_000, 'x')
  const held: ServerResponse[] = []
  const started = await startBench(
    (_, response) => {
      response.writeHead(200, { 'cache-control': 'max-age=60', 'content-length': body.length })
      if (held.push(response) === 1) response.write(body.subarray(0, 300_000))
      else response.end(body)
    },
    { windowBytes: 1000, storeStallMs: 1000 }
  )
  started.store.onPut = (writer) => ({ write: (chunk) => writer.write(chunk), drained: () => writer.drained(), commit: () => writer.commit(), abort: () => writer.abort() })
  try {
    const leader = await openAnswer(started.port, '/a')
    let received = 0
    leader.on('data', (chunk: Buffer) => {
      received += chunk.length
    })
    await until(() => received === 300_000)
    const late = await Promise.all(Array.from({ length: 10 }, () => started.get('/a')))
    expect(late.every((answer) => answer.body.equals(body))).toBe(true)
    expect(started.origin.requests.length).toBe(2)
    held[0]?.end(body.subarray(300_000))
    await until(() => received === body.length)
  } finally {
    await started.close()
  }
})
