import { cache } from '@proxy/cache'
import { compose, createHeaders, createRequest, discardBody } from '@proxy/pipeline'
import { sharedRedisUrl, startRedis } from '@proxy/testing'
import { describe, expect, onTestFinished, test } from 'vitest'
import { connectRedis } from '../src/connect.ts'
import { RedisPurgeLog } from '../src/purge-log.ts'
import { RedisStore } from '../src/redis-store.ts'
import { connected, countCommands, createStore, freshPrefix, patient, until, write } from './support.ts'

const url = await sharedRedisUrl()

async function filled(count: number, prefix = freshPrefix()) {
  const made = await createStore(url, { prefix })
  for (let i = 0; i < count; i++) expect(await write(made.store, `key ${i}`, Buffer.from('body'), { url: `https://example.org/${i}` })).toBe(true)
  return made
}

describe('sweep', () => {
  test('removes what matches and leaves the rest, and what is not ours', async () => {
    const prefix = `${freshPrefix()}a*[b]?\\^:`
    const { store, redis } = await filled(350, prefix)
    // A pattern that was not escaped would find this one.
    const like = await createStore(url, { prefix: prefix.replace('*', 'xx') })
    await write(like.store, 'key 2', Buffer.from('x'), { url: 'https://example.org/2' })
    await redis.zadd(`${prefix}purges`, 1, 'x')
    await redis.hset(`${prefix}other`, 'v', 'x')
    await redis.set(`${prefix}text`, 'x')
    await write(store, 'long'.repeat(100), Buffer.from('x'), { url: 'https://example.org/2' })
    expect(await store.sweep((meta) => Number(meta.url.slice(20)) % 2 === 0, false)).toBe(176)
    expect(await redis.keys(`${prefix.replace(/[*?[\]\\^]/g, '\\$&')}*`)).toHaveLength(178)
    expect([await store.get('key 0'), (await store.get('key 1'))?.meta.url]).toEqual([undefined, 'https://example.org/1'])
    expect(await like.store.get('key 2')).toBeDefined()
  })

  test('only counts where that is wanted, and reads no body', async () => {
    const { store } = await filled(20)
    const sent = countCommands()
    expect(await store.sweep(() => true, true)).toBeGreaterThanOrEqual(20)
    expect(new Set(sent.names)).toEqual(new Set(['scan', 'hmget']))
    expect(await store.get('key 7')).toBeDefined()
  })

  test('several at once take two walks, and each hears of its own', async () => {
    const { store } = await filled(20)
    const sent = countCommands()
    await store.sweep(() => false, true)
    const once = sent.names.length
    const sweeps = Array.from({ length: 10 }, (_, i) => store.sweep(({ url: of }) => of === `https://example.org/${i}`, false))
    expect(await Promise.all(sweeps)).toEqual(Array.from({ length: 10 }, () => 1))
    expect(sent.names.length).toBeLessThan(2 * once + 20)
  })

  test('a purge answers how many it touched, the log in Redis beside the entries', async () => {
    const { store, redis, prefix } = await createStore(url)
    const purgeLog = new RedisPurgeLog({ redis, key: `${prefix}purges`, clockMarginMs: 0 })
    onTestFinished(() => purgeLog.close())
    const layer = cache({ store, purgeLog })
    const handler = compose(layer)(async () => {
      const headers = createHeaders()
      headers['cache-control'] = 'max-age=60'
      return { status: 200, headers, body: Buffer.from('x') }
    })
    for (const target of ['/a/1', '/a/2', '/b']) discardBody((await handler(createRequest({ target, authority: 'example.org' }))).body)
    await layer.drain()
    expect(await layer.purge({ prefix: 'http://example.org/a/' })).toEqual({ touched: 2 })
    expect(await layer.purge({ all: true, soft: true })).toEqual({ touched: 1 })
  })

  test('Redis that is away for a moment is waited for; for long, the sweep rejects; a store that closes ends it', { timeout: 60_000 }, async () => {
    const server = await startRedis()
    onTestFinished(() => server.stop())
    const connection = connectRedis(server.url)
    onTestFinished(() => connection.close())
    await connection.ready(20_000)
    const store = new RedisStore({ ...patient, redis: connection.client })
    await write(store, 'k', Buffer.from('x'))
    await server.kill()
    await until('it is noticed', () => !store.stats().connected)
    const waiting = store.sweep(() => true, false)
    await server.restart()
    const raw = await connected(server.url)
    await raw.set('cache:other', 'x')
    expect(await waiting).toBe(0)
    await server.kill()
    await until('it is noticed', () => !store.stats().connected)
    await expect(store.sweep(() => true, false)).rejects.toMatchObject({ code: 'REDIS_UNAVAILABLE' })
    const last = store.sweep(() => true, false)
    await store.close()
    expect(await last).toBe(0)
  })

  test('what was replaced since it was looked at is not removed', async () => {
    const { store } = await filled(1)
    const replaced = Promise.withResolvers<boolean>()
    const swept = store.sweep((meta) => {
      if (meta.status === 200) replaced.resolve(write(store, 'key 0', Buffer.from('new'), { status: 203 }))
      return meta.status === 200
    }, false)
    expect(await replaced.promise).toBe(true)
    // Commands of one connection are carried out in turn: the new one was there before the removal.
    expect(await swept).toBe(0)
    expect((await store.get('key 0'))?.meta.status).toBe(203)
  })
})
