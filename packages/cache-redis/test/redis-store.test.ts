import { sampleBytes, sampleMeta } from '@proxy/cache/conformance'
import { type BodySink, createHeaders, readAll, toSource, WholeBody } from '@proxy/pipeline'
import { createFakeClock, sharedRedisUrl } from '@proxy/testing'
import { Redis } from 'ioredis'
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { RedisStore } from '../src/redis-store.ts'
import { bodyOf, connected, countCommands, createStore, digest, freshPrefix, MAX, mustGet, until, write } from './support.ts'

let url: string
beforeAll(async () => {
  url = await sharedRedisUrl()
})

describe('what lies in Redis', () => {
  test('a readable key, plain JSON and numbered blocks', async () => {
    const { store, redis, prefix } = await createStore(url)
    const headers = createHeaders()
    headers['content-type'] = 'text/plain'
    expect(await write(store, '/artworks/7.jpg', sampleBytes(70_000), { headers, status: 404 })).toBe(true)
    const fields = await redis.hgetall(`${prefix}/artworks/7.jpg`)
    expect(Object.keys(fields).sort()).toEqual(['0', '1', 'c', 'm', 'v'])
    expect(JSON.parse(fields.m as string)).toMatchObject({ v: 1, status: 404, headers: { 'content-type': 'text/plain' }, url: 'https://example.org/a.png' })
    expect(fields.v).toMatch(/\.70000$/)
    expect(fields.c).toMatch(/^[0-9a-f]{8}$/)
  })

  test('the default prefix is cache:', async () => {
    const redis = await connected(url)
    const store = new RedisStore({ redis })
    const key = freshPrefix()
    expect(await write(store, key, Buffer.from('x'))).toBe(true)
    expect(await redis.unlink(`cache:${key}`)).toBe(1)
  })

  test('Redis drops an entry at keepUntil, which touch moves', async () => {
    const { store, redis, prefix } = await createStore(url)
    const keepUntil = Date.now() + 3_600_000
    expect(await write(store, 'k', Buffer.from('x'), { keepUntil: keepUntil + 0.25 })).toBe(true)
    expect(await redis.pexpiretime(`${prefix}k`)).toBe(keepUntil + 1)
    const { version } = await mustGet(store, 'k')
    expect(await store.touch('k', version, sampleMeta({ keepUntil: keepUntil + 5000 }))).toBe(true)
    expect(await redis.pexpiretime(`${prefix}k`)).toBe(keepUntil + 5000)
  })

  test('an entry whose time comes is gone', async () => {
    const { store } = await createStore(url)
    expect(await write(store, 'k', Buffer.from('x'), { status: 404, keepUntil: Date.now() + 100 })).toBe(true)
    await until('expired', async () => (await store.get('k')) === undefined)
  })

  test('what has expired, or would never, is not stored', async () => {
    const clock = createFakeClock(Date.now() + 10_000)
    const { store } = await createStore(url, { clock })
    for (const keepUntil of [clock.wallMs(), clock.wallMs() - 1, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(await write(store, 'k', Buffer.from('x'), { keepUntil })).toBe(false)
      expect(await store.touch('k', 'v', sampleMeta({ keepUntil }))).toBe(false)
    }
    expect(store.stats()).toMatchObject({ droppedWrites: 4, pendingBytes: 0 })
  })

  test('a shorter entry leaves no blocks of the longer one before it', async () => {
    const { store, redis, prefix } = await createStore(url)
    await write(store, 'k', sampleBytes(200_000))
    await write(store, 'k', sampleBytes(10))
    expect((await redis.hkeys(`${prefix}k`)).sort()).toEqual(['0', 'c', 'm', 'v'])
  })

  test('stores with other prefixes do not meet, those with the same one share', async () => {
    const one = await createStore(url)
    const other = await createStore(url, { redis: one.redis })
    const same = await createStore(url, { prefix: one.prefix })
    await write(one.store, 'k', Buffer.from('x'))
    expect(await other.store.get('k')).toBeUndefined()
    expect((await bodyOf(same.store, 'k')).toString()).toBe('x')
    await write(same.store, 'k', Buffer.from('y'))
    expect((await bodyOf(one.store, 'k')).toString()).toBe('y')
  })
})

describe('commands', () => {
  test('a hit is one HMGET, metadata alone does not bring the body, a commit is one transaction', async () => {
    const { store } = await createStore(url)
    const sent = countCommands()
    await write(store, 'k', sampleBytes(300_000))
    expect(sent.names).toEqual(['multi', 'unlink', 'hset', 'pexpireat', 'exec'])
    sent.names.length = 0
    await bodyOf(store, 'k')
    expect(sent.names).toEqual(['hmget'])
    sent.names.length = 0
    const entry = await store.get('k', { body: { start: 70_000, end: 140_000 } })
    expect(digest(await readAll(await (entry?.open({ start: 70_000, end: 140_000 }) ?? null), MAX))).toBe(digest(sampleBytes(300_000).subarray(70_000, 140_001)))
    expect(sent.names).toEqual(['hmget'])
    sent.names.length = 0
    const bare = await store.get('k', { body: 'none' })
    await bare?.open()
    expect(sent.names).toEqual(['hmget', 'hmget'])
  })

  test('a range brings only its blocks over the wire', async () => {
    const { store, redis } = await createStore(url)
    await write(store, 'k', sampleBytes(1_000_000))
    const received = (): number => redis.stream.bytesRead
    const before = received()
    const entry = await store.get('k', { body: { start: 500_000, end: 500_010 } })
    expect((await readAll(await (entry?.open({ start: 500_000, end: 500_010 }) ?? null), MAX)).length).toBe(11)
    expect(received() - before).toBeLessThan(100_000)
  })

  test('a body of more than 16 blocks comes window by window, as it is read', async () => {
    const { store } = await createStore(url, { maxEntryBytes: 8 << 20 })
    const bytes = sampleBytes(5_000_000)
    await write(store, 'k', bytes)
    const sent = countCommands()
    const body = await (await mustGet(store, 'k')).open()
    expect(sent.names.length).toBe(1)
    const source = toSource(body)
    expect(source.length).toBe(5_000_000)
    const chunks: Uint8Array[] = []
    let finish = (): void => {}
    const ended = new Promise<void>((resolve) => {
      finish = resolve
    })
    const sink: BodySink = {
      data(chunk) {
        chunks.push(chunk)
        return chunks.length !== 8
      },
      end: () => finish(),
      error: finish
    }
    const flow = source.start(sink)
    expect(chunks.length).toBe(8)
    expect(sent.names.length).toBe(1)
    flow.resume()
    await ended
    expect(digest(Buffer.concat(chunks))).toBe(digest(bytes))
    expect(sent.names).toEqual(Array.from({ length: 5 }, () => 'hmget'))
  })

  test('a body whose entry is replaced between two windows ends in an error', async () => {
    const { store } = await createStore(url, { maxEntryBytes: 4 << 20 })
    await write(store, 'k', sampleBytes(3_000_000))
    const body = await (await mustGet(store, 'k')).open()
    await write(store, 'k', sampleBytes(3_000_000, 2))
    await expect(readAll(body, MAX)).rejects.toMatchObject({ code: 'STORE_ENTRY_GONE' })
    expect(store.stats().broken).toBe(0)
    expect(digest(await bodyOf(store, 'k'))).toBe(digest(sampleBytes(3_000_000, 2)))
  })

  test('a reader that leaves while a window is under way hears nothing more', async () => {
    const { store, redis } = await createStore(url, { maxEntryBytes: 4 << 20 })
    await write(store, 'k', sampleBytes(3_000_000))
    const calls: string[] = []
    let count = 0
    const flow = toSource(await (await mustGet(store, 'k')).open()).start({ data: () => ++count > 0, end: () => void calls.push('end'), error: () => void calls.push('error') })
    expect(count).toBe(16)
    flow.abort()
    await redis.ping()
    expect([count, calls]).toEqual([16, []])
  })

  test('a small body is text, for one write with its header', async () => {
    const { store } = await createStore(url)
    await write(store, 'k', sampleBytes(16 * 1024))
    const body = await (await mustGet(store, 'k')).open()
    expect(body).toBeInstanceOf(WholeBody)
    expect((body as WholeBody).latin1).toBe(sampleBytes(16 * 1024).toString('latin1'))
  })

  test('two processes that write one key have versions of their own', async () => {
    const { store, redis, prefix } = await createStore(url)
    const { store: other } = await createStore(url, { redis, prefix })
    await write(store, 'k', Buffer.from('x'))
    const first = await mustGet(store, 'k')
    await write(other, 'k', Buffer.from('x'))
    expect((await mustGet(store, 'k')).version).not.toBe(first.version)
  })

  test('an own ioredis client serves too, and one that was to connect lazily is connected', async () => {
    const redis = new Redis(url, { lazyConnect: true })
    onTestFinished(() => redis.disconnect())
    const store = new RedisStore({ redis, prefix: freshPrefix(), commandTimeoutMs: 20_000 })
    await expect(store.get('k')).rejects.toMatchObject({ code: 'REDIS_UNAVAILABLE' })
    await until('connected', () => redis.status === 'ready')
    expect(await store.get('k')).toBeUndefined()
  })
})

describe('bounds', () => {
  test('writes under way hold no more than maxPendingBytes, and give back what they held', async () => {
    const { store } = await createStore(url, { maxPendingBytes: 300_000 })
    const first = store.put('a', sampleMeta())
    const second = store.put('b', sampleMeta())
    first.write(sampleBytes(200_000))
    second.write(sampleBytes(50_000))
    expect(store.stats().pendingBytes).toBeGreaterThan(250_000)
    expect(second.write(sampleBytes(60_000))).toBe(true)
    expect(store.stats().pendingBytes).toBeLessThan(210_000)
    expect(await second.commit()).toBe(false)
    const committed = first.commit()
    expect(store.stats().pendingBytes).toBeGreaterThan(200_000)
    expect(await committed).toBe(true)
    expect(store.stats()).toMatchObject({ pendingBytes: 0, droppedWrites: 1, writes: 1 })
    store.put('c', sampleMeta()).abort()
    expect(store.stats().pendingBytes).toBe(0)
    expect(await first.commit()).toBe(false)
  })

  test('a small slice of a large buffer is copied, and does not keep it', async () => {
    const { store } = await createStore(url)
    const large = Buffer.alloc(1_000_000, 'a')
    const writer = store.put('k', sampleMeta())
    writer.write(large.subarray(10, 20))
    large.fill('b')
    expect(await writer.commit()).toBe(true)
    expect((await bodyOf(store, 'k')).toString()).toBe('aaaaaaaaaa')
  })

  test('too large is dropped before it is sent, also when it is only declared', async () => {
    const { store } = await createStore(url, { maxEntryBytes: 1000 })
    const sent = countCommands()
    expect(await write(store, 'k', Buffer.alloc(1001))).toBe(false)
    expect(await store.put('k', sampleMeta({ length: 1001 })).commit()).toBe(false)
    expect(sent.names).toEqual([])
    expect(store.stats()).toMatchObject({ droppedWrites: 2, pendingBytes: 0 })
    expect(await write(store, 'k', Buffer.alloc(1000))).toBe(true)
  })

  test('an abort signal ends the wait, and the command that was waited for harms nothing', async () => {
    const { store } = await createStore(url)
    await write(store, 'k', Buffer.from('x'))
    const reason = new Error('the client has left')
    const controller = new AbortController()
    const waiting = store.get('k', { signal: controller.signal })
    controller.abort(reason)
    await expect(waiting).rejects.toBe(reason)
    await expect(store.get('k', { signal: controller.signal })).rejects.toBe(reason)
    expect((await bodyOf(store, 'k')).toString()).toBe('x')
    expect(store.stats()).toMatchObject({ timeouts: 0, errors: 0, pendingCommands: 0, readBreaker: 'closed' })
  })

  test('close waits for the commit under way, then nothing is done any more', async () => {
    const { store, redis, prefix } = await createStore(url)
    const writer = store.put('k', sampleMeta())
    const late = store.put('late', sampleMeta())
    writer.write(sampleBytes(500_000))
    let stored: boolean | undefined
    void writer.commit().then((result) => {
      stored = result
    })
    await store.close()
    expect(stored).toBe(true)
    expect(await redis.exists(`${prefix}k`)).toBe(1)
    expect(await late.commit()).toBe(false)
    expect(await write(store, 'k', Buffer.from('x'))).toBe(false)
    await expect(store.get('k')).rejects.toMatchObject({ code: 'REDIS_UNAVAILABLE' })
    expect(redis.status).toBe('ready')
  })

  test('counts', async () => {
    const { store } = await createStore(url)
    await store.get('k')
    await write(store, 'k', Buffer.from('x'))
    await store.get('k')
    expect(store.stats()).toEqual({
      hits: 1,
      misses: 1,
      writes: 1,
      droppedWrites: 0,
      timeouts: 0,
      errors: 0,
      refused: 0,
      broken: 0,
      connected: true,
      readBreaker: 'closed',
      writeBreaker: 'closed',
      pendingCommands: 0,
      pendingBytes: 0
    })
  })

  test('limits that are no limits are refused', async () => {
    const redis = await connected(url)
    for (const options of [
      { maxEntryBytes: 0 },
      { maxPendingBytes: -1 },
      { maxPendingCommands: 0 },
      { commandTimeoutMs: Number.NaN },
      { breaker: { openMs: 0 } },
      { breaker: { failureThreshold: 0 } }
    ]) {
      expect(() => new RedisStore({ redis, ...options })).toThrow(TypeError)
    }
  })
})
