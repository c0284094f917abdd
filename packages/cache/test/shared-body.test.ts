import { ProxyError } from '@proxy/pipeline'
import { describe, expect, test } from 'vitest'
import { sampleBytes } from '../src/conformance.ts'
import { MemoryStore } from '../src/memory-store.ts'
import { SharedBody } from '../src/shared-body.ts'
import { CHUNK, meta, send, setup, WINDOW, withoutReadFrom } from './shared-body-setup.ts'
import { digest, PushSource, TestReader, until, WatchedStore } from './support.ts'

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

describe('joining late', () => {
  // A joiner whose first bytes had left the window was put on it all the same, and waited for a chunk that had been dropped: for ever, where none came any more.
  test('after the window has moved on: from the write under way', () => {
    const bytes = sampleBytes(1_000_000)
    const { body, source, leader } = setup()
    const first = new TestReader(leader)
    send(source, bytes)
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
    send(source, bytes, CHUNK)
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
    send(source, bytes)
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
    send(source, bytes)
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
