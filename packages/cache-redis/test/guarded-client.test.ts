import { createFakeClock, type RedisServer, startRedis } from '@proxy/testing'
import { beforeEach, expect, onTestFinished, test } from 'vitest'
import { connected, countCommands, createStore, freshPrefix, until, write } from './support.ts'

let server: RedisServer
beforeEach(async () => {
  server = await startRedis()
  return () => server.stop()
})

/** A frozen server whose connection stays: the driver's own timeouts are far away. */
async function frozen(options: Parameters<typeof createStore>[1]) {
  const states: string[] = []
  const clock = createFakeClock()
  const faults: string[] = []
  const { store, redis, prefix } = await createStore(server.url, {
    clock,
    commandTimeoutMs: 50,
    onFault: (error) => faults.push(error.code),
    ...options,
    breaker: { failureThreshold: 3, openMs: 1000, onStateChange: (state) => states.push(state) }
  })
  server.freeze()
  onTestFinished(() => server.thaw())
  return { store, redis, prefix, clock, states, faults }
}

test('silence opens the breaker; then nothing reaches the wire but one PING per openMs, and everybody is refused at once', async () => {
  const { store, clock, states, faults } = await frozen({})
  for (let i = 0; i < 3; i++) await expect(store.get('k')).rejects.toMatchObject({ code: 'REDIS_TIMEOUT' })
  expect(states).toEqual(['open'])
  expect(faults).toEqual(['REDIS_TIMEOUT', 'REDIS_TIMEOUT', 'REDIS_TIMEOUT'])
  const sent = countCommands()
  for (let i = 0; i < 100; i++) {
    await expect(store.get('k')).rejects.toMatchObject({ code: 'REDIS_UNAVAILABLE' })
    await expect(store.delete('k')).rejects.toMatchObject({ code: 'REDIS_UNAVAILABLE' })
    clock.advance(5)
  }
  expect(sent.names).toEqual([])
  clock.advance(500)
  for (let i = 0; i < 10; i++) await expect(store.get('k')).rejects.toMatchObject({ code: 'REDIS_UNAVAILABLE' })
  expect(sent.names).toEqual(['ping'])
  await until('the probe timed out', () => states.length === 3)
  expect(states).toEqual(['open', 'half-open', 'open'])
  expect(store.stats()).toMatchObject({ timeouts: 4, refused: 210, readBreaker: 'open' })
  server.thaw()
  clock.advance(1000)
  await expect(store.get('k')).rejects.toMatchObject({ code: 'REDIS_UNAVAILABLE' })
  await until('the probe was answered', () => store.stats().readBreaker === 'closed')
  expect(await store.get('k')).toBeUndefined()
})

test('those who wait when the breaker opens do not wait for their own timeout', async () => {
  const { store, faults } = await frozen({})
  const codes = await Promise.all(Array.from({ length: 53 }, () => store.get('k').catch((error: { code: string }) => error.code)))
  expect(codes).toEqual([...Array.from({ length: 3 }, () => 'REDIS_TIMEOUT'), ...Array.from({ length: 50 }, () => 'REDIS_UNAVAILABLE')])
  expect(faults.length).toBe(3)
  expect(store.stats()).toMatchObject({ timeouts: 3, refused: 50, pendingCommands: 0 })
})

test('replies that come after their command was given up answer nobody else', async () => {
  const { store: writer, prefix } = await createStore(server.url)
  for (let i = 0; i < 40; i++) await write(writer, `k${i}`, Buffer.from(`body ${i}`))
  const { store, redis } = await frozen({ prefix, maxEntryBytes: 100 })
  const lost = await Promise.allSettled(Array.from({ length: 20 }, (_, i) => store.get(`k${i}`)))
  expect(lost.every((outcome) => outcome.status === 'rejected')).toBe(true)
  server.thaw()
  // A second store on the same connection: its commands queue behind those that nobody waits for any more.
  const { store: other } = await createStore(server.url, { prefix, redis })
  for (let i = 39; i >= 0; i--) {
    const entry = await other.get(`k${i}`)
    expect((await entry?.open()) as unknown).toMatchObject({ latin1: `body ${i}` })
  }
})

test('no more commands wait than maxPendingCommands', async () => {
  const { store } = await frozen({ maxPendingCommands: 2 })
  const waiting = [store.get('a'), store.get('b')].map((get) => get.catch((error: { code: string }) => error.code))
  expect(store.stats().pendingCommands).toBe(2)
  await expect(store.get('c')).rejects.toMatchObject({ code: 'REDIS_UNAVAILABLE', message: 'too many commands wait for Redis' })
  expect(await Promise.all(waiting)).toEqual(['REDIS_TIMEOUT', 'REDIS_TIMEOUT'])
})

test('close ends within the deadline though nothing is answered', async () => {
  const { store } = await frozen({})
  const get = store.get('k').catch((error: { code: string }) => error.code)
  await store.close()
  expect(store.stats().pendingCommands).toBe(0)
  expect(await get).toBe('REDIS_TIMEOUT')
})

test('a pause of this process longer than the deadline is no fault of Redis', async () => {
  const redis = await connected(server.url)
  const { store } = await createStore(server.url, { redis, prefix: freshPrefix(), commandTimeoutMs: 50 })
  const gets = Array.from({ length: 10 }, (_, i) => store.get(`k${i}`))
  const end = performance.now() + 200
  while (performance.now() < end);
  expect(await Promise.all(gets)).toEqual(Array.from({ length: 10 }, () => undefined))
  expect(store.stats()).toMatchObject({ timeouts: 0, misses: 10 })
})

test('a server that answers but is of no use opens the breaker too', async () => {
  const { store, redis } = await createStore(server.url, { breaker: { failureThreshold: 3 } })
  await redis.call('ACL', 'SETUSER', 'default', '-hmget')
  for (let i = 0; i < 3; i++) await expect(store.get('k')).rejects.toMatchObject({ code: 'REDIS_ERROR' })
  expect(store.stats()).toMatchObject({ readBreaker: 'open', errors: 3, timeouts: 0 })
})

test('a broken connection fails what waits on it, and is no crash', async () => {
  const { store, redis } = await createStore(server.url)
  server.freeze()
  const gets = Array.from({ length: 4 }, () => store.get('k').catch((error: { code: string }) => error.code))
  await server.kill()
  const killed = performance.now()
  expect(new Set(await Promise.all(gets))).toEqual(new Set(['REDIS_UNAVAILABLE']))
  // Not after so many attempts to connect, nor after the deadline, which is 20 s here.
  expect(performance.now() - killed).toBeLessThan(5000)
  await until('the loss is known', () => redis.status !== 'ready')
  expect(store.stats()).toMatchObject({ errors: 4, connected: false, readBreaker: 'closed' })
  expect(await write(store, 'k', Buffer.from('x'))).toBe(false)
  expect(store.stats()).toMatchObject({ droppedWrites: 1, pendingBytes: 0 })
})
