import { type RedisServer, startRedis } from '@proxy/testing'
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { connectRedis } from '../src/connect.ts'
import { RedisStore } from '../src/redis-store.ts'
import { createHarness, longest, noStore, type Traffic, total } from './fault-harness.ts'
import { bodyOf, connected, countCommands, freshPrefix, until, write } from './support.ts'

let server: RedisServer
beforeEach(async () => {
  server = await startRedis()
  return () => server.stop()
})

/** With all the defaults, as a server would use it. */
function defaultStore() {
  const connection = connectRedis(server.url)
  onTestFinished(() => connection.close())
  const store = new RedisStore({ redis: connection.client, prefix: freshPrefix() })
  return { store, connection }
}

/** How long requests take at most when there is no Redis at all, on this machine and now. */
async function control(): Promise<Traffic> {
  return (await createHarness(noStore)).run(500)
}

async function filled(store: RedisStore, run: (requests: number) => Promise<Traffic>): Promise<void> {
  await run(80)
  await until('the background writes are done', () => store.stats().pendingBytes === 0)
  expect((await run(80)).fromStore).toBeGreaterThan(0)
}

async function servesAgain(store: RedisStore, run: (requests: number) => Promise<Traffic>): Promise<void> {
  await until('reads come from Redis again', async () => {
    await run(80)
    return (await run(80)).fromStore > 0
  })
  expect(store.stats()).toMatchObject({ readBreaker: 'closed', connected: true })
}

describe('R1: Redis is down at the start', () => {
  test('everything is served from the origin without waiting, and Redis is used once it is there', async () => {
    await server.kill()
    const { store, connection } = defaultStore()
    const { run } = await createHarness(store)
    const sent = countCommands()
    const traffic = await run(500)
    expect(traffic).toMatchObject({ fromOrigin: 500, fromStore: 0 })
    expect(sent.names).toEqual([])
    expect(store.stats()).toMatchObject({ refused: 500, droppedWrites: 500, timeouts: 0, errors: 0, pendingBytes: 0 })
    expect(longest(traffic)).toBeLessThan(10 * longest(await control()) + 100)
    await server.restart()
    expect(await connection.ready(20_000)).toBe(true)
    await servesAgain(store, run)
  })
})

describe('R2: Redis is killed while it is used', () => {
  test('no client notices, nothing hangs, and it is used again after its restart', async () => {
    const { store, connection } = defaultStore()
    await connection.ready(20_000)
    const { run } = await createHarness(store)
    await filled(store, run)
    let killed: Promise<void> | undefined
    const traffic = await run(1000, (done) => {
      if (done === 100) killed = server.kill()
    })
    await killed
    expect(traffic.times.length).toBe(1000)
    expect(traffic.fromOrigin).toBeGreaterThan(0)
    expect(longest(traffic)).toBeLessThan(10 * (longest(await control()) + 100))
    expect(store.stats()).toMatchObject({ connected: false, pendingCommands: 0 })
    await until('no write is left', () => store.stats().pendingBytes === 0)
    const sent = countCommands()
    expect((await run(100)).fromOrigin).toBe(100)
    expect(sent.names.filter((name) => name !== 'hello' && name !== 'client')).toEqual([])
    await server.restart()
    expect(await connection.ready(20_000)).toBe(true)
    await servesAgain(store, run)
  })
})

describe('R3: Redis is frozen while it is used', () => {
  test('after 20 timeouts at most the breaker is open and Redis costs nothing; after the thaw it is used again', async () => {
    const { store, connection } = defaultStore()
    await connection.ready(20_000)
    const { run } = await createHarness(store)
    await filled(store, run)
    const sent = countCommands()
    let sentWhenOpen: number | undefined
    const traffic = await run(1000, (done) => {
      if (done === 100) server.freeze()
      if (sentWhenOpen === undefined && store.stats().readBreaker === 'open') sentWhenOpen = sent.names.length
    })
    expect(traffic.times.length).toBe(1000)
    const { timeouts, readBreaker, connected: still } = store.stats()
    expect(timeouts).toBeGreaterThan(0)
    expect(timeouts).toBeLessThanOrEqual(20)
    expect(readBreaker !== 'closed' || !still).toBe(true)
    // What reached the wire since: probes, and the handshakes of the driver, which gives the silent connection up.
    const since = sent.names.slice(sentWhenOpen).filter((name) => name !== 'hello' && name !== 'client')
    expect(since.every((name) => name === 'ping')).toBe(true)
    expect(longest(traffic)).toBeLessThan(10 * (longest(await control()) + 100))
    // Long enough frozen for the connection to be given up: still nobody waits.
    await until('the connection was given up', () => !store.stats().connected)
    const outage = await run(500)
    expect(outage.fromOrigin).toBe(500)
    expect(total(outage)).toBeLessThan(10 * total(await control()))
    expect(store.stats().timeouts).toBeLessThanOrEqual(20)
    server.thaw()
    expect(await connection.ready(20_000)).toBe(true)
    await servesAgain(store, run)
  })

  test('a store alone: each of many reads and writes is answered, and what was stored before is what comes back after', async () => {
    const { store, connection } = defaultStore()
    await connection.ready(20_000)
    for (let i = 0; i < 20; i++) expect(await write(store, `k${i}`, Buffer.from(`body ${i}`))).toBe(true)
    server.freeze()
    const outcomes = await Promise.all(
      Array.from({ length: 200 }, async (_, i) => {
        if (i % 4 === 0) return (await write(store, `new${i}`, Buffer.from('x'))) ? 'stored' : 'dropped'
        return store.get(`k${i % 20}`).then(
          (entry) => (entry === undefined ? 'miss' : 'hit'),
          (error: { code: string }) => error.code
        )
      })
    )
    expect(new Set(outcomes)).toEqual(new Set(['dropped', 'REDIS_TIMEOUT', 'REDIS_UNAVAILABLE']))
    expect(store.stats().timeouts).toBeLessThanOrEqual(20)
    expect(store.stats()).toMatchObject({ droppedWrites: 50, pendingBytes: 0, pendingCommands: 0 })
    server.thaw()
    await until('the breaker closed', async () => {
      await store.get('k0').catch(() => {}) // refused until the probe was answered
      return store.stats().connected && store.stats().readBreaker === 'closed'
    })
    for (let i = 0; i < 20; i++) expect((await bodyOf(store, `k${i}`)).toString()).toBe(`body ${i}`)
  })
})

describe('R4: Redis is full', () => {
  test('writes are dropped and counted, reads go on, and writes too once there is room', async () => {
    const { store, connection } = defaultStore()
    await connection.ready(20_000)
    const { run } = await createHarness(store)
    await filled(store, run)
    const raw = await connected(server.url)
    await raw.config('SET', 'maxmemory-policy', 'noeviction')
    await raw.config('SET', 'maxmemory', '1')
    await raw.del(`${[...(await raw.keys('*'))][0]}`)
    const before = store.stats()
    const sent = countCommands()
    const traffic = await run(500)
    expect(traffic.times.length).toBe(500)
    expect(traffic.fromStore).toBeGreaterThan(400)
    expect(traffic.fromOrigin).toBeGreaterThan(0)
    const full = store.stats()
    expect(full.readBreaker).toBe('closed')
    expect(full.droppedWrites - before.droppedWrites).toBe(traffic.fromOrigin)
    expect(full.writes).toBe(before.writes)
    expect(full.pendingBytes).toBe(0)
    expect(sent.names.length).toBeGreaterThanOrEqual(500)
    await raw.config('SET', 'maxmemory', '0')
    await until('written again', () => write(store, 'after', Buffer.from('x')))
    expect((await bodyOf(store, 'after')).toString()).toBe('x')
  })

  test('no retry storm: after five refusals one write a second is tried, reads and deletes always', async () => {
    const { store, connection } = defaultStore()
    await connection.ready(20_000)
    expect(await write(store, 'old', Buffer.from('kept'))).toBe(true)
    expect(await write(store, 'older', Buffer.from('kept'))).toBe(true)
    const { version } = (await store.get('old')) ?? { version: '' }
    const raw = await connected(server.url)
    await raw.config('SET', 'maxmemory', '1')
    const sent = countCommands()
    for (let i = 0; i < 200; i++) expect(await write(store, 'new', Buffer.alloc(10_000))).toBe(false)
    const transactions = sent.names.filter((name) => name === 'multi').length
    expect(transactions).toBeGreaterThanOrEqual(5)
    expect(transactions).toBeLessThan(50)
    expect(store.stats()).toMatchObject({ readBreaker: 'closed', writeBreaker: 'open', droppedWrites: 200, writes: 2 })
    await expect(store.touch('old', version, (await store.get('old'))!.meta)).rejects.toMatchObject({ code: 'REDIS_WRITE_REFUSED' })
    expect((await bodyOf(store, 'old')).toString()).toBe('kept')
    expect(await store.get('new')).toBeUndefined()
    expect(await store.delete('old', version)).toBe(true)
    expect(await store.delete('older')).toBe(true)
  })

  test('a touch that Redis has no memory for leaves the entry as it was', async () => {
    const { store, connection } = defaultStore()
    await connection.ready(20_000)
    expect(await write(store, 'k', Buffer.from('kept'))).toBe(true)
    const entry = await store.get('k')
    const raw = await connected(server.url)
    await raw.config('SET', 'maxmemory', '1')
    await expect(store.touch('k', entry!.version, { ...entry!.meta, status: 203 })).rejects.toMatchObject({ code: 'REDIS_WRITE_REFUSED' })
    const after = await store.get('k')
    expect(after?.meta.status).toBe(200)
    expect(store.stats()).toMatchObject({ readBreaker: 'closed', droppedWrites: 1 })
  })

  test('what was there before a write that is refused stays', async () => {
    const { store, connection } = defaultStore()
    await connection.ready(20_000)
    expect(await write(store, 'k', Buffer.from('before'))).toBe(true)
    const raw = await connected(server.url)
    await raw.config('SET', 'maxmemory', '1')
    expect(await write(store, 'k', Buffer.from('after'))).toBe(false)
    expect((await bodyOf(store, 'k')).toString()).toBe('before')
  })
})

describe('R5: the primary has become a replica', () => {
  test('writes are dropped, the connection is made anew, reads go on', async () => {
    const { store, connection } = defaultStore()
    await connection.ready(20_000)
    expect(await write(store, 'k', Buffer.from('kept'))).toBe(true)
    const other = await startRedis()
    onTestFinished(() => other.stop())
    const raw = await connected(server.url)
    let connects = 0
    connection.client.on('connect', () => connects++)
    // A replica of a primary that cannot be reached keeps and serves what it has.
    await raw.config('SET', 'replica-read-only', 'yes')
    await other.kill()
    await raw.call('REPLICAOF', '127.0.0.1', String(other.port))
    expect(await write(store, 'k', Buffer.from('new'))).toBe(false)
    await until('connected anew', () => connects === 1 && store.stats().connected)
    expect((await bodyOf(store, 'k')).toString()).toBe('kept')
    await raw.call('REPLICAOF', 'NO', 'ONE')
    await until('written again', () => write(store, 'k', Buffer.from('new')))
    expect((await bodyOf(store, 'k')).toString()).toBe('new')
  })
})
