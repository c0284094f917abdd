import { type CacheStore, MemoryStore, tiered } from '@proxy/cache'
import { type FaultProxy, type RedisServer, startFaultProxy, startRedis } from '@proxy/testing'
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { connectRedis } from '../src/connect.ts'
import { RedisStore } from '../src/redis-store.ts'
import { bodyOf, connected, freshPrefix, until, write } from './support.ts'

let server: RedisServer
let link: FaultProxy
beforeEach(async () => {
  server = await startRedis()
  link = await startFaultProxy({ port: server.port })
  return async () => {
    await link.stop()
    await server.stop()
  }
})

/** Memory before Redis, as a server has them. `wrap` makes another store of Redis. */
async function tiers({ wrap = (redis: CacheStore): CacheStore => redis, maxMissedBytes = 1 << 20, commandTimeoutMs = 500 } = {}) {
  const connection = connectRedis(`redis://127.0.0.1:${link.port}`)
  onTestFinished(() => connection.close())
  expect(await connection.ready(20_000)).toBe(true)
  const prefix = freshPrefix()
  const redis = new RedisStore({ redis: connection.client, prefix, commandTimeoutMs, breaker: { openMs: 100 } })
  const memory = new MemoryStore()
  const store = tiered(
    [
      { name: 'memory', store: memory },
      { name: 'redis', store: wrap(redis) }
    ],
    { maxMissedBytes }
  )
  const direct = await connected(server.url)
  /** Keys that Redis has. */
  const kept = async (): Promise<string[]> => (await direct.keys(`${prefix}*`)).map((key) => key.slice(prefix.length)).sort()
  const back = async (): Promise<void> => {
    await link.setMode({ kind: 'pass' })
    await until('Redis is asked again', async () => {
      await store.get('nothing').catch(() => {})
      return redis.stats().connected && redis.stats().readBreaker === 'closed'
    })
  }
  return { store, redis, memory, kept, back }
}

const keys = Array.from({ length: 30 }, (_, i) => `k${String(i).padStart(2, '0')}`)
const old = Buffer.from('old')

describe('what should have been removed while Redis was away', () => {
  // It was found again when Redis was back, for as long as it was fresh.
  test.each(['refuse', 'freeze'] as const)('is not found when it is back, and is gone soon: %s', async (kind) => {
    const { store, kept, back } = await tiers()
    for (const key of keys) expect(await write(store, key, old)).toBe(true)
    await link.setMode({ kind })
    if (kind === 'freeze') onTestFinished(() => link.setMode({ kind: 'pass' }))
    for (const key of keys) await expect(store.delete(key)).rejects.toThrow()
    expect(store.tierStats()[1]).toMatchObject({ missedRemovals: keys.length })
    if (kind === 'refuse') expect(await kept()).toEqual(keys)
    await back()
    for (const key of keys) expect(await store.get(key)).toBeUndefined()
    await until('they are removed', async () => {
      await store.get('nothing')
      return (await kept()).length === 0
    })
    expect(store.tierStats()[1]?.missedRemovals).toBe(0)
    expect(await write(store, 'k00', Buffer.from('new'))).toBe(true)
    expect(await kept()).toEqual(['k00'])
  })

  test('where more was missed than is remembered, nothing that Redis held is found', async () => {
    const { store, memory, kept, back } = await tiers({ maxMissedBytes: 500 })
    for (const key of [...keys, 'other']) await write(store, key, old)
    await link.setMode({ kind: 'refuse' })
    for (const key of keys) await expect(store.delete(key)).rejects.toThrow()
    await memory.delete('other')
    await back()
    for (const key of [...keys, 'other']) expect(await store.get(key)).toBeUndefined()
    await until('they are removed', async () => (await kept()).length === 0)
  })
})

test('a store with its own breaker gets no second one: it is asked again as soon as it lets itself be asked', async () => {
  const { store, redis, back } = await tiers()
  await write(store, 'k', old)
  await link.setMode({ kind: 'refuse' })
  for (let i = 0; i < 50; i++) expect(await store.get('none')).toBeUndefined()
  // All of them reached the store, which refused them.
  expect(store.tierStats()[1]).toMatchObject({ errors: 50, misses: 0 })
  await back()
  expect(redis.stats().readBreaker).toBe('closed')
  expect(await bodyOf(store, 'k')).toEqual(old)
  expect(store.tierStats()[1]).toMatchObject({ readBreaker: 'closed', writeBreaker: 'closed' })
})

test('one whose breaker cannot be seen is behind two of them, and comes back all the same', async () => {
  const hidden = (redis: CacheStore): CacheStore => ({
    get: (key, want) => redis.get(key, want),
    put: (key, meta) => redis.put(key, meta),
    touch: (key, version, meta) => redis.touch(key, version, meta),
    delete: (key, version) => redis.delete(key, version),
    close: () => redis.close()
  })
  const { store, memory } = await tiers({ wrap: hidden })
  await write(store, 'k', old)
  await memory.delete('k')
  await link.setMode({ kind: 'refuse' })
  for (let i = 0; i < 50; i++) expect(await store.get('none')).toBeUndefined()
  expect(store.tierStats()[1]).toMatchObject({ errors: 5, readBreaker: 'open' })
  await link.setMode({ kind: 'pass' })
  await until('it is found again', async () => (await store.get('k')) !== undefined)
})

test('a frozen Redis costs a few lookups their time, and what is written meanwhile is bounded', async () => {
  const { store, redis } = await tiers({ commandTimeoutMs: 50 })
  await link.setMode({ kind: 'freeze' })
  for (let i = 0; i < 50; i++) {
    await store.get('none')
    await write(store, `k${i}`, Buffer.alloc(100_000))
  }
  expect(redis.stats().timeouts).toBeLessThanOrEqual(20)
  const [memory, tier] = store.tierStats()
  expect(memory).toMatchObject({ writesGivenUp: 0, bytesWritten: 5_000_000 })
  expect(tier).toMatchObject({ writesGivenUp: 50, bytesWritten: 0, bufferedBytes: 0 })
  expect(tier?.timeouts).toBe(redis.stats().timeouts)
})
