import { ProxyError } from '@proxy/pipeline'
import { describe, expect, test } from 'vitest'
import { sampleBytes, sampleMeta } from '../src/conformance.ts'
import { MemoryStore } from '../src/memory-store.ts'
import { SharedBody, type SharedBodyOptions } from '../src/shared-body.ts'
import type { CacheStore, CacheWriter } from '../src/store.ts'
import { digest, headers, PushSource, settle, TestReader, until, WatchedStore } from './support.ts'

const WINDOW = 200_000
const CHUNK = 50_000

const meta = sampleMeta({ id: 'this', headers: headers({ etag: '"strong"' }) })

type Changes = Partial<SharedBodyOptions> & { wrap?: (writer: CacheWriter) => CacheWriter; memory?: MemoryStore }

interface Setup {
  body: SharedBody
  source: PushSource
  /** The first reader's body. */
  leader: ReturnType<SharedBody['begin']>
  store: MemoryStore
  unkept: number
  errors: unknown[]
}

function setup(changes: Changes = {}): Setup {
  const { wrap, memory, ...options } = changes
  const store = memory ?? new MemoryStore({ maxBytes: 64 << 20, maxEntryBytes: 32 << 20 })
  const writer = store.put('key', meta)
  const result = { store, unkept: 0, errors: [] as unknown[], source: new PushSource() }
  const body = new SharedBody({
    store,
    key: 'key',
    meta,
    writer: wrap?.(writer) ?? writer,
    length: undefined,
    windowBytes: WINDOW,
    maxObjectBytes: 64 << 20,
    finishBytes: 1 << 20,
    storeStallMs: 60_000,
    onUnkept: () => result.unkept++,
    onStoreError: (error) => result.errors.push(error),
    ...options
  })
  return Object.assign(result, { body, leader: body.begin(result.source) })
}

/** Sends until the reader's side wants a pause; how many bytes were sent. */
function sendWhileWanted(source: PushSource, bytes: Buffer, from: number): number {
  let at = from
  while (at < bytes.length && !source.paused) {
    source.push(bytes.subarray(at, at + CHUNK))
    at += CHUNK
  }
  return Math.min(at, bytes.length)
}

/** A writer that cannot be read while it is written: what most stores give. */
function withoutReadFrom(writer: CacheWriter): CacheWriter {
  return { write: (chunk) => writer.write(chunk), drained: () => writer.drained(), commit: () => writer.commit(), abort: () => writer.abort() }
}

test('every reader gets every byte while they arrive', () => {
  const { body, source, leader } = setup()
  const first = new TestReader(leader)
  const second = new TestReader(body.reader() ?? null)
  source.push('one ')
  expect([first.text, second.text]).toEqual(['one ', 'one '])
  const third = new TestReader(body.reader() ?? null)
  expect(third.text).toBe('one ')
  source.push('two')
  source.end()
  expect([first, second, third].map((reader) => [reader.state, reader.text])).toEqual(Array.from({ length: 3 }, () => ['ended', 'one two']))
})

test('a body that is there at once, and an empty one', async () => {
  for (const text of ['all', '']) {
    const source = new PushSource()
    if (text !== '') source.push(text)
    source.end()
    const { store, body } = setup()
    const whole = new SharedBody({
      store,
      key: 'other',
      meta,
      writer: store.put('other', meta),
      length: text.length,
      windowBytes: WINDOW,
      maxObjectBytes: 100,
      finishBytes: 0,
      storeStallMs: 1,
      onUnkept() {},
      onStoreError() {}
    })
    const reader = new TestReader(whole.begin(source))
    expect([reader.state, reader.text, await whole.settled]).toEqual(['ended', text, true])
    body.error(new ProxyError('over', { code: 'OVER', status: 502, source: 'upstream' }))
  }
})

describe('pace', () => {
  test('a slow joiner does not slow the leader, and costs no memory beyond the window', async () => {
    const bytes = sampleBytes(10_000_000)
    const { body, source, leader } = setup({ length: bytes.length })
    const fast = new TestReader(leader)
    const slow = new TestReader(body.reader() ?? null, { slow: true })
    let most = 0
    for (let at = 0; at < bytes.length; at += CHUNK) {
      expect(source.push(bytes.subarray(at, at + CHUNK))).toBe(true)
      most = Math.max(most, body.heldBytes)
    }
    source.end()
    expect([fast.state, fast.hash]).toEqual(['ended', digest(bytes)])
    expect(slow.bytes).toBe(CHUNK)
    expect(most).toBeLessThanOrEqual(WINDOW + CHUNK + 128)
    expect(await body.settled).toBe(true)
    while (slow.state === 'reading') {
      slow.take()
      await settle(1)
    }
    expect([slow.state, slow.hash]).toEqual(['ended', digest(bytes)])
  })

  test('a slow leader does not slow a joiner', () => {
    const bytes = sampleBytes(3_000_000)
    const { body, source, leader } = setup()
    const slow = new TestReader(leader, { slow: true })
    const fast = new TestReader(body.reader() ?? null)
    expect(sendWhileWanted(source, bytes, 0)).toBe(bytes.length)
    source.end()
    expect([fast.state, fast.hash]).toEqual(['ended', digest(bytes)])
    slow.hurry()
    expect([slow.state, slow.hash]).toEqual(['ended', digest(bytes)])
  })

  // The window was filled for it, to no use: a thousand slow clients of large files would have held a gigabyte.
  test.each([false, true])('one slow reader alone sets the pace, and little is fetched ahead (the write can be read: %s)', (readable) => {
    const bytes = sampleBytes(3_000_000)
    const { body, source, leader } = setup(readable ? {} : { wrap: withoutReadFrom })
    const reader = new TestReader(leader, { slow: true })
    let at = 0
    while (at < bytes.length) {
      at = sendWhileWanted(source, bytes, at)
      expect(at - reader.bytes).toBeLessThan(65_536 + CHUNK)
      expect(body.heldBytes).toBeLessThanOrEqual(readable ? 65_536 + CHUNK + 3 * 128 : WINDOW + CHUNK + 128)
      reader.take()
    }
    source.end()
    while (reader.state === 'reading') reader.take()
    expect(reader.hash).toBe(digest(bytes))
  })

  // Only readers of the window were asked whether they wanted more: one who had caught up from behind it waited for the leader, who had stopped reading.
  test('a reader that fell behind and caught up goes on without the leader', () => {
    const bytes = sampleBytes(3_000_000)
    const { body, source, leader } = setup()
    const first = new TestReader(leader)
    const second = new TestReader(body.reader() ?? null, { slow: true })
    let at = 0
    for (; at < 1_000_000; at += CHUNK) source.push(bytes.subarray(at, at + CHUNK))
    first.slow = true
    at = sendWhileWanted(source, bytes, at)
    expect(source.paused).toBe(true)
    second.hurry()
    expect(source.paused).toBe(false)
    at = sendWhileWanted(source, bytes, at)
    expect(at).toBe(bytes.length)
    source.end()
    expect([second.state, second.hash]).toEqual(['ended', digest(bytes)])
    first.hurry()
    expect([first.state, first.hash]).toEqual(['ended', digest(bytes)])
  })

  test('the same where a write cannot be read: the rest comes from the store', async () => {
    const bytes = sampleBytes(3_000_000)
    const { body, source, leader } = setup({ wrap: withoutReadFrom })
    const first = new TestReader(leader)
    const second = new TestReader(body.reader() ?? null, { slow: true })
    let at = 0
    for (; at < 1_000_000; at += CHUNK) source.push(bytes.subarray(at, at + CHUNK))
    first.slow = true
    at = sendWhileWanted(source, bytes, at)
    second.hurry()
    at = sendWhileWanted(source, bytes, at)
    expect(at).toBe(bytes.length)
    source.end()
    await until(() => second.state !== 'reading')
    expect([second.state, second.hash]).toEqual(['ended', digest(bytes)])
    first.hurry()
    await until(() => first.state !== 'reading')
    expect([first.state, first.hash]).toEqual(['ended', digest(bytes)])
  })

  test('tiny pieces count as the memory they take', () => {
    const { body, source, leader } = setup()
    const slow = new TestReader(leader, { slow: true })
    let sent = 0
    while (!source.paused) {
      source.push('x')
      sent++
    }
    expect(sent).toBeLessThan(2000)
    expect(body.heldBytes).toBeLessThanOrEqual(WINDOW + 200)
    slow.leave()
  })

  test('empty pieces are nothing', () => {
    const { source, leader } = setup()
    const reader = new TestReader(leader)
    expect(source.push('')).toBe(true)
    source.push('a')
    source.push('')
    source.end()
    expect([reader.state, reader.chunks.length, reader.text]).toEqual(['ended', 1, 'a'])
  })
})

describe('joining late', () => {
  // A joiner whose first bytes had left the window was put on it all the same, and waited for a chunk that had been dropped: for ever, where none came any more.
  test('after the window has moved on: from the write under way', () => {
    const bytes = sampleBytes(1_000_000)
    const { body, source, leader } = setup()
    const first = new TestReader(leader)
    for (let at = 0; at < bytes.length; at += CHUNK) source.push(bytes.subarray(at, at + CHUNK))
    const late = new TestReader(body.reader() ?? null)
    expect(late.bytes).toBe(bytes.length)
    source.end()
    const last = new TestReader(body.reader() ?? null)
    expect([first, late, last].map((reader) => [reader.state, reader.hash])).toEqual(Array.from({ length: 3 }, () => ['ended', digest(bytes)]))
  })

  test('where a write cannot be read, only as long as the window has all of it', () => {
    const bytes = sampleBytes(1_000_000)
    const { body, source, leader } = setup({ wrap: withoutReadFrom })
    const first = new TestReader(leader)
    source.push(bytes.subarray(0, CHUNK))
    const second = body.reader()
    expect(second).toBeDefined()
    for (let at = CHUNK; at < bytes.length; at += CHUNK) source.push(bytes.subarray(at, at + CHUNK))
    expect(body.reader()).toBeUndefined()
    second?.discard()
    first.leave()
  })

  test('not after a failure', () => {
    const { body, source, leader } = setup()
    const reader = new TestReader(leader)
    source.push('x')
    source.fail()
    expect(body.reader()).toBeUndefined()
    expect(reader.state).toBe('failed')
  })

  test('a reader that is attached but has not started yet gets everything', () => {
    const bytes = sampleBytes(1_000_000)
    const { body, source, leader } = setup()
    const waiting = body.reader()
    const first = new TestReader(leader)
    for (let at = 0; at < bytes.length; at += CHUNK) source.push(bytes.subarray(at, at + CHUNK))
    source.end()
    expect(first.hash).toBe(digest(bytes))
    expect(new TestReader(waiting ?? null).hash).toBe(digest(bytes))
  })
})

describe('failing', () => {
  const broken = new ProxyError('reset', { code: 'UPSTREAM_RESET', status: 502, source: 'upstream' })

  test('a broken body is broken for everybody, at once, with the cause, and is not stored', async () => {
    const all = setup()
    const { body, source, leader, store } = all
    const started = new TestReader(leader)
    const paused = new TestReader(body.reader() ?? null, { slow: true })
    const behind = new TestReader(body.reader() ?? null, { slow: true })
    const unstarted = body.reader()
    source.push('x'.repeat(1000))
    paused.take()
    for (let i = 0; i < 20; i++) source.push(Buffer.alloc(CHUNK))
    expect(behind.bytes).toBe(1000)
    source.fail(broken)
    expect([started, paused, behind].map((reader) => [reader.state, reader.failure])).toEqual(Array.from({ length: 3 }, () => ['failed', broken]))
    const late = new TestReader(unstarted ?? null)
    expect([late.state, late.failure]).toEqual(['failed', broken])
    expect(await body.settled).toBe(false)
    expect(await store.get('key')).toBeUndefined()
    expect(store.stats().bytes).toBe(0)
    expect(all.unkept).toBe(1)
  })

  test.each([
    ['too short', 9],
    ['too long', 11]
  ])('a body that is %s for its Content-Length does not pass for whole', async (_, size) => {
    const { body, source, leader, store } = setup({ length: 10 })
    const reader = new TestReader(leader)
    source.push('x'.repeat(size))
    source.end()
    expect([reader.state, reader.failure?.code]).toEqual(['failed', 'BODY_BROKEN'])
    expect(await body.settled).toBe(false)
    expect(await store.get('key')).toBeUndefined()
  })

  // Told apart by their times, two writes of one millisecond were taken for each other: found by the fuzz test, as a body that no origin had sent.
  test('an entry of a later write is never mixed in', async () => {
    const bytes = sampleBytes(1_000_000)
    const memory = new MemoryStore()
    const store = new WatchedStore(memory)
    const { body, source, leader } = setup({ wrap: withoutReadFrom, memory, store })
    const fast = new TestReader(leader)
    const slow = new TestReader(body.reader() ?? null, { slow: true })
    for (let at = 0; at < bytes.length; at += CHUNK) source.push(bytes.subarray(at, at + CHUNK))
    source.end()
    await body.settled
    expect(fast.state).toBe('ended')
    // Another response of the same length, tag and times has taken its place.
    const later = store.put('key', { ...meta, id: 'later' })
    later.write(sampleBytes(1_000_000, 2))
    await later.commit()
    slow.hurry()
    await until(() => slow.state !== 'reading')
    expect([slow.state, slow.failure?.code]).toEqual(['failed', 'CACHE_READER_LOST'])
    expect([store.leaked, store.twice]).toEqual([0, []])
  })
})

describe('leaving', () => {
  test('all have left: the rest is fetched while it is small', async () => {
    const { body, source, leader, store } = setup({ length: 1_000_000, finishBytes: 900_000 })
    const reader = new TestReader(leader)
    const other = body.reader()
    const bytes = sampleBytes(1_000_000)
    source.push(bytes.subarray(0, 100_000))
    reader.leave()
    expect(source.aborted).toBe(false)
    other?.discard()
    expect(source.aborted).toBe(false)
    for (let at = 100_000; at < bytes.length; at += CHUNK) expect(source.push(bytes.subarray(at, at + CHUNK))).toBe(true)
    source.end()
    expect(await body.settled).toBe(true)
    expect((await store.get('key'))?.meta.length).toBe(1_000_000)
  })

  test('all have left, and too much is missing', async () => {
    const { body, source, leader, store } = setup({ length: 1_000_000, finishBytes: 899_999 })
    const reader = new TestReader(leader)
    source.push(Buffer.alloc(100_000))
    reader.leave()
    expect(source.aborted).toBe(true)
    expect(await body.settled).toBe(false)
    expect(store.stats().bytes).toBe(0)
  })

  test('all have left a body of unknown length: no more than that much is fetched', async () => {
    const { body, source, leader } = setup({ finishBytes: 500_000 })
    const reader = new TestReader(leader)
    source.push(Buffer.alloc(100_000))
    reader.leave()
    let sent = 0
    while (source.push(Buffer.alloc(CHUNK))) sent += CHUNK
    expect(sent).toBe(500_000)
    expect(source.aborted).toBe(true)
    expect(await body.settled).toBe(false)
  })

  test('a reader who comes while nobody is there keeps it going', () => {
    const { body, source, leader } = setup({ finishBytes: 100_000 })
    leader.discard()
    source.push('x')
    const late = new TestReader(body.reader() ?? null)
    for (let i = 0; i < 10; i++) expect(source.push(Buffer.alloc(CHUNK))).toBe(true)
    source.end()
    expect([late.state, late.bytes]).toEqual(['ended', 500_001])
  })

  test('readers who left behind the window are not waited for', () => {
    const { body, source, leader } = setup({ finishBytes: 0 })
    const fast = new TestReader(leader)
    const slow = new TestReader(body.reader() ?? null, { slow: true })
    for (let i = 0; i < 20; i++) source.push(Buffer.alloc(CHUNK))
    fast.leave()
    expect(source.aborted).toBe(false)
    slow.leave()
    expect(source.aborted || !source.push('x')).toBe(true)
  })
})

describe('a store that does not do its part', () => {
  test('it refuses in the middle: those on the window go on at the pace of the slowest, those behind it are cut', async () => {
    const bytes = sampleBytes(2_000_000)
    const memory = new MemoryStore({ maxBytes: 64 << 20, maxEntryBytes: 1_000_000 })
    const { body, source, leader, ...rest } = setup({ memory })
    const fast = new TestReader(leader)
    const behind = new TestReader(body.reader() ?? null, { slow: true })
    let at = 0
    for (; at < 900_000; at += CHUNK) source.push(bytes.subarray(at, at + CHUNK))
    expect(behind.state).toBe('reading')
    const near = new TestReader(body.reader() ?? null)
    near.slow = true
    for (let i = 0; i < 3; i++, at += CHUNK) source.push(bytes.subarray(at, at + CHUNK))
    expect(behind.state).toBe('failed')
    expect(behind.failure?.code).toBe('CACHE_READER_LOST')
    expect(memory.stats().bytes).toBe(0)
    // `near` reads from the write that was given up.
    expect(near.state).toBe('failed')
    expect(sendWhileWanted(source, bytes, at)).toBe(bytes.length)
    source.end()
    expect([fast.state, fast.hash]).toEqual(['ended', digest(bytes)])
    expect(await body.settled).toBe(false)
    expect(rest.errors).toEqual([])
  })

  // The window believed its bytes to be in the store after that had refused them, and dropped what a slow reader still needed;
  // and where it knew, it grew without bound, as one hungry reader was enough to fetch more.
  test('it refused from the start: nobody is cut, the slowest sets the pace', () => {
    const bytes = sampleBytes(2_000_000)
    const memory = new MemoryStore({ maxBytes: 64 << 20, maxEntryBytes: 1000 })
    const { body, source, leader } = setup({ memory })
    const fast = new TestReader(leader)
    const slow = new TestReader(body.reader() ?? null, { slow: true })
    let at = 0
    while (at < bytes.length) {
      at = sendWhileWanted(source, bytes, at)
      expect(body.heldBytes).toBeLessThanOrEqual(WINDOW + 2 * (CHUNK + 128))
      slow.take()
      slow.take()
      // As soon as it has made room, not only when it has had all.
      expect(source.paused).toBe(false)
    }
    source.end()
    while (slow.state === 'reading') slow.take()
    expect([fast.state, fast.hash]).toEqual(['ended', digest(bytes)])
    expect([slow.state, slow.hash]).toEqual(['ended', digest(bytes)])
  })

  test('what is too large for the cache is passed on', async () => {
    const bytes = sampleBytes(1_000_000)
    const all = setup({ maxObjectBytes: 500_000 })
    const reader = new TestReader(all.leader)
    for (let at = 0; at < bytes.length; at += CHUNK) all.source.push(bytes.subarray(at, at + CHUNK))
    all.source.end()
    expect([reader.state, reader.hash]).toEqual(['ended', digest(bytes)])
    expect(await all.body.settled).toBe(false)
    expect(all.unkept).toBe(1)
  })

  test('nobody reads and nothing is kept: nothing is fetched', () => {
    const { source, leader } = setup({ maxObjectBytes: 100 })
    leader.discard()
    source.push(Buffer.alloc(101))
    expect(source.aborted).toBe(true)
  })

  test('it does not keep up: readers wait for it', async () => {
    const drains: PromiseWithResolvers<void>[] = []
    const { source, leader } = setup({
      wrap: (writer) => ({
        write: (chunk) => {
          writer.write(chunk)
          return false
        },
        drained: () => {
          const drain = Promise.withResolvers<void>()
          drains.push(drain)
          return drain.promise
        },
        commit: () => writer.commit(),
        abort: () => writer.abort()
      })
    })
    const reader = new TestReader(leader)
    expect(source.push('a')).toBe(false)
    // Already under way when the pause was asked for.
    expect(source.push('b')).toBe(false)
    expect(drains.length).toBe(1)
    drains[0]?.resolve()
    await settle()
    expect(source.paused).toBe(false)
    source.push('c')
    source.end()
    expect([reader.state, reader.text]).toEqual(['ended', 'abc'])
  })

  test('it never drains: it is left out, and the readers go on', async () => {
    const bytes = sampleBytes(500_000)
    let aborted = 0
    const { body, source, leader, errors } = setup({
      storeStallMs: 10,
      wrap: () => ({ write: () => false, drained: () => new Promise(() => {}), commit: () => Promise.resolve(true), abort: () => aborted++ })
    })
    const reader = new TestReader(leader)
    expect(source.push(bytes.subarray(0, CHUNK))).toBe(false)
    await new Promise<void>((resolve) => {
      const look = setInterval(() => {
        if (source.paused) return
        clearInterval(look)
        resolve()
      }, 1)
    })
    for (let at = CHUNK; at < bytes.length; at += CHUNK) expect(source.push(bytes.subarray(at, at + CHUNK))).toBe(true)
    source.end()
    expect([reader.state, reader.hash, aborted]).toEqual(['ended', digest(bytes), 1])
    expect(await body.settled).toBe(false)
    expect((errors[0] as ProxyError).code).toBe('STORE_STALLED')
  })

  test.each<[string, Partial<CacheWriter>]>([
    [
      'write throws',
      {
        write: () => {
          throw new Error('bug')
        }
      }
    ],
    ['commit rejects', { commit: () => Promise.reject(new Error('bug')) }],
    ['drained rejects', { write: () => false, drained: () => Promise.reject(new Error('bug')) }]
  ])('it breaks its contract, %s: the readers notice nothing', async (_, broken) => {
    const { body, source, leader } = setup({ wrap: (writer) => ({ ...withoutReadFrom(writer), ...broken }) })
    const reader = new TestReader(leader)
    source.push('a')
    await settle()
    source.push('b')
    source.end()
    expect([reader.state, reader.text]).toEqual(['ended', 'ab'])
    expect(await body.settled).toBe(broken.drained !== undefined)
  })

  test.each<[string, (store: MemoryStore) => void]>([
    ['get rejects', (store) => (store.get = () => Promise.reject(new Error('down')))],
    ['the entry is gone', (store) => void store.delete('key')],
    [
      'open rejects',
      (store) => {
        const get: CacheStore['get'] = store.get.bind(store)
        store.get = async (key) => {
          const entry = await get(key)
          return entry && { version: entry.version, meta: entry.meta, open: () => Promise.reject(new Error('gone')), discard() {} }
        }
      }
    ]
  ])('a reader behind the window, and %s: cut, never ended', async (_, spoil) => {
    const bytes = sampleBytes(1_000_000)
    const { body, source, leader, store } = setup({ wrap: withoutReadFrom })
    const fast = new TestReader(leader)
    const slow = new TestReader(body.reader() ?? null, { slow: true })
    for (let at = 0; at < bytes.length; at += CHUNK) source.push(bytes.subarray(at, at + CHUNK))
    source.end()
    await body.settled
    spoil(store)
    slow.hurry()
    await until(() => slow.state !== 'reading')
    expect([slow.state, slow.failure?.code]).toEqual(['failed', 'CACHE_READER_LOST'])
    expect(fast.state).toBe('ended')
  })

  test('a reader behind the window leaves while the rest is being stored', async () => {
    const bytes = sampleBytes(1_000_000)
    const rest = new PushSource()
    const { body, source, leader, store } = setup({ wrap: withoutReadFrom })
    const get = store.get.bind(store)
    store.get = async (key) => {
      const entry = await get(key)
      return entry && { version: entry.version, meta: entry.meta, open: () => Promise.resolve(rest), discard() {} }
    }
    const fast = new TestReader(leader)
    const slow = new TestReader(body.reader() ?? null, { slow: true })
    for (let at = 0; at < bytes.length; at += CHUNK) source.push(bytes.subarray(at, at + CHUNK))
    slow.hurry()
    slow.leave()
    source.end()
    expect(await body.settled).toBe(true)
    await settle()
    expect([slow.state, fast.state, rest.started, rest.discarded]).toEqual(['left', 'ended', false, true])
  })
})
