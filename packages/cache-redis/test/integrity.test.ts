import type { CacheEntry } from '@proxy/cache'
import { BlockEncoder } from '@proxy/cache/blocks'
import { sampleBytes, sampleMeta } from '@proxy/cache/conformance'
import { readAll } from '@proxy/pipeline'
import { sharedRedisUrl } from '@proxy/testing'
import { beforeAll, describe, expect, test } from 'vitest'
import { metaChecksum } from '../src/layout.ts'
import { bodyOf, createStore, digest, MAX, mustGet, until, write } from './support.ts'

let url: string
beforeAll(async () => {
  url = await sharedRedisUrl()
})

const sizes = [1, 5000, 65_536, 200_000]

async function flip(
  redis: { hgetBuffer(key: string, field: string): Promise<Buffer | null>; hset(key: string, field: string, value: Buffer): Promise<number> },
  name: string,
  field: string,
  at: number
): Promise<void> {
  const bytes = Buffer.from((await redis.hgetBuffer(name, field)) as Buffer)
  bytes[at] = (bytes.at(at) as number) ^ 0x10
  await redis.hset(name, field, bytes)
}

describe('damage in a block', () => {
  test.each(sizes)('of a body of %i bytes: open rejects, the entry is removed and the next write heals it', async (size) => {
    const faults: string[] = []
    const { store, redis, prefix } = await createStore(url, { onFault: (error) => faults.push(error.code) })
    const last = String(Math.ceil(size / 65_536) - 1)
    for (const [field, at] of [
      ['0', 0],
      ['0', 4],
      [last, 4]
    ] as const) {
      await write(store, 'k', sampleBytes(size))
      await flip(redis, `${prefix}k`, field, at)
      await expect((await mustGet(store, 'k')).open()).rejects.toMatchObject({ code: 'STORE_BODY_BROKEN' })
      expect(await store.get('k')).toBeUndefined()
      expect(await redis.exists(`${prefix}k`)).toBe(0)
    }
    await write(store, 'k', sampleBytes(size))
    expect(digest(await bodyOf(store, 'k'))).toBe(digest(sampleBytes(size)))
    expect(store.stats().broken).toBe(3)
    expect(faults).toEqual(['STORE_BODY_BROKEN', 'STORE_BODY_BROKEN', 'STORE_BODY_BROKEN'])
  })

  test('beyond the first window: the body breaks off, and the entry is removed', async () => {
    const { store, redis, prefix } = await createStore(url, { maxEntryBytes: 4 << 20 })
    await write(store, 'k', sampleBytes(2_000_000))
    await flip(redis, `${prefix}k`, '20', 100)
    const body = await (await mustGet(store, 'k')).open()
    await expect(readAll(body, MAX)).rejects.toMatchObject({ code: 'STORE_BODY_BROKEN' })
    expect(await store.get('k')).toBeUndefined()
  })

  test('a range that does not touch the damage is served, one that does is not', async () => {
    const { store, redis, prefix } = await createStore(url)
    await write(store, 'k', sampleBytes(200_000))
    await flip(redis, `${prefix}k`, '2', 1000)
    const open = async (start: number, end: number): Promise<Buffer> => readAll(await ((await store.get('k', { body: { start, end } })) as CacheEntry).open({ start, end }), MAX)
    expect(digest(await open(10, 100_000))).toBe(digest(sampleBytes(200_000).subarray(10, 100_001)))
    await expect(open(140_000, 140_001)).rejects.toMatchObject({ code: 'STORE_BODY_BROKEN' })
    await expect(open(10, 20)).rejects.toThrow()
  })
})

test.each(['0', '1', '3'])('a truncated or missing block %s', async (field) => {
  const { store, redis, prefix } = await createStore(url)
  const damages = [
    (bytes: Buffer) => redis.hset(`${prefix}k`, field, bytes.subarray(0, -1)),
    (bytes: Buffer) => redis.hset(`${prefix}k`, field, Buffer.concat([bytes, Buffer.from('x')])),
    () => redis.hset(`${prefix}k`, field, ''),
    () => redis.hset(`${prefix}k`, field, 'abc'),
    () => redis.hdel(`${prefix}k`, field)
  ]
  for (const damage of damages) {
    await write(store, 'k', sampleBytes(200_000))
    await damage((await redis.hgetBuffer(`${prefix}k`, field)) as Buffer)
    await expect((await mustGet(store, 'k')).open()).rejects.toMatchObject({ code: 'STORE_BODY_BROKEN' })
    expect(await redis.exists(`${prefix}k`)).toBe(0)
  }
})

test('a body whose blocks are sound but not those of its length', async () => {
  const { store, redis, prefix } = await createStore(url)
  const encoder = new BlockEncoder('id')
  encoder.push(sampleBytes(100))
  const block = encoder.flush() as Buffer
  const meta = JSON.stringify(sampleMeta())
  for (const version of ['id.101', 'id.99']) {
    await redis.hset(`${prefix}k`, { v: version, m: meta, c: metaChecksum(version, meta), 0: block })
    await expect((await mustGet(store, 'k')).open()).rejects.toMatchObject({ code: 'STORE_BODY_BROKEN' })
  }
})

test('a block in the place of another, or of another entry, does not pass', async () => {
  const { store, redis, prefix } = await createStore(url)
  await write(store, 'k', sampleBytes(200_000))
  await write(store, 'other', sampleBytes(200_000))
  await redis.hset(`${prefix}k`, '0', (await redis.hgetBuffer(`${prefix}k`, '1')) as Buffer)
  await expect((await mustGet(store, 'k')).open()).rejects.toMatchObject({ code: 'STORE_BODY_BROKEN' })
  await write(store, 'k', sampleBytes(200_000))
  await redis.hset(`${prefix}k`, '0', (await redis.hgetBuffer(`${prefix}other`, '0')) as Buffer)
  await expect((await mustGet(store, 'k')).open()).rejects.toMatchObject({ code: 'STORE_BODY_BROKEN' })
})

describe('damage in the metadata is a miss, and the entry is removed', () => {
  test.each([
    ['garbage', { m: 'garbage' }],
    ['a changed status', { m: '{"v":1,"status":404}' }],
    ['another length', { v: 'id.3' }],
    ['no body length', { v: 'id' }],
    ['another checksum', { c: '00000000' }],
    ['an empty record', { m: '' }]
  ])('%s', async (_, fields) => {
    const { store, redis, prefix } = await createStore(url)
    await write(store, 'k', Buffer.from('hello'))
    await redis.hset(`${prefix}k`, fields)
    expect(await store.get('k')).toBeUndefined()
    await until('removed', async () => (await redis.exists(`${prefix}k`)) === 0)
    expect(store.stats()).toMatchObject({ broken: 1, misses: 1, hits: 0 })
    await write(store, 'k', Buffer.from('hello'))
    expect((await bodyOf(store, 'k')).toString()).toBe('hello')
  })

  test('a missing field', async () => {
    const { store, redis, prefix } = await createStore(url)
    for (const field of ['v', 'm', 'c']) {
      await write(store, 'k', Buffer.from('hello'))
      await redis.hdel(`${prefix}k`, field)
      expect(await store.get('k')).toBeUndefined()
    }
  })
})

test('a record of a later format is a miss and stays for those who can read it', async () => {
  const { store, redis, prefix } = await createStore(url)
  await redis.hset(`${prefix}k`, { v: 'x.0', m: '{"v":2}', c: metaChecksum('x.0', '{"v":2}') })
  expect(await store.get('k')).toBeUndefined()
  expect(await redis.exists(`${prefix}k`)).toBe(1)
  expect(store.stats().broken).toBe(0)
})

test('a key that holds something else is a miss to read and is replaced by a write', async () => {
  const { store, redis, prefix } = await createStore(url)
  for (const occupy of [() => redis.set(`${prefix}k`, '"NotFound"'), () => redis.lpush(`${prefix}k`, 'a'), () => redis.sadd(`${prefix}k`, 'a')]) {
    await redis.unlink(`${prefix}k`)
    await occupy()
    for (let i = 0; i < 10; i++) expect(await store.get('k')).toBeUndefined()
    expect(await store.delete('k', 'some-version')).toBe(false)
    expect(await store.touch('k', 'some-version', sampleMeta())).toBe(false)
    expect(await redis.exists(`${prefix}k`)).toBe(1)
    expect(store.stats().readBreaker).toBe('closed')
    expect(await write(store, 'k', Buffer.from('ours'))).toBe(true)
    expect((await bodyOf(store, 'k')).toString()).toBe('ours')
  }
  await redis.set(`${prefix}k`, 'x')
  expect(await store.delete('k')).toBe(true)
})
