import { createServer } from 'node:net'
import { inspect } from 'node:util'
import type { ProxyError } from '@proxy/pipeline'
import { startFaultProxy, startRedis } from '@proxy/testing'
import { expect, onTestFinished, test } from 'vitest'
import { type ConnectRedisOptions, connectRedis, type RedisConnection } from '../src/connect.ts'
import { until } from './support.ts'

function connect(url: string, options?: ConnectRedisOptions): { connection: RedisConnection; faults: ProxyError[] } {
  const faults: ProxyError[] = []
  const connection = connectRedis(url, { onFault: (error) => faults.push(error), ...options })
  onTestFinished(() => connection.close())
  return { connection, faults }
}

test('connects, names itself and closes', async () => {
  const redis = await startRedis()
  onTestFinished(() => redis.stop())
  const { connection } = connect(`${redis.url}/2`, { connectionName: 'proxy-test' })
  expect(await connection.ready(20_000)).toBe(true)
  expect(await connection.client.client('INFO')).toMatch(/name=proxy-test .*db=2 /)
  await connection.close()
  expect(connection.client.status).toBe('end')
  expect(await connection.ready()).toBe(false)
  await connection.close()
})

test('Redis that is down delays nothing and is there within 2 s of its start', async () => {
  const redis = await startRedis()
  onTestFinished(() => redis.stop())
  await redis.kill()
  const { connection, faults } = connect(redis.url, { maxReconnectDelayMs: 100 })
  expect(await connection.ready(50)).toBe(false)
  await expect(connection.client.get('x')).rejects.toThrow('writeable') // and does not wait in a queue
  await until('several attempts failed', () => faults.length >= 3)
  expect(faults.every((error) => error.code === 'REDIS_UNAVAILABLE')).toBe(true)
  await redis.restart()
  const start = performance.now()
  expect(await connection.ready(20_000)).toBe(true)
  expect(performance.now() - start).toBeLessThan(2000)
})

test('attempts to connect become rarer, down to one a second, and never all at once', () => {
  const delays = [1, 2, 3, 5, 20, 100_000].map((attempt) => connect('redis://127.0.0.1:1').connection.client.options.retryStrategy?.(attempt) as number)
  for (const [i, [least, most]] of [
    [50, 100],
    [100, 200],
    [200, 400],
    [500, 1000],
    [500, 1000],
    [500, 1000]
  ].entries()) {
    expect(delays[i]).toBeGreaterThanOrEqual(least as number)
    expect(delays[i]).toBeLessThanOrEqual(most as number)
  }
})

test('a server that accepts connections and says nothing is left and tried again', async () => {
  const redis = await startRedis()
  onTestFinished(() => redis.stop())
  redis.freeze()
  const { connection, faults } = connect(redis.url, { maxReconnectDelayMs: 100 })
  expect(await connection.ready(50)).toBe(false)
  await until('a handshake was given up', () => faults.length >= 2)
  redis.thaw()
  const start = performance.now()
  expect(await connection.ready(20_000)).toBe(true)
  expect(performance.now() - start).toBeLessThan(2000)
})

test('a connection on which nothing arrives is given up, and the next one serves', async () => {
  const redis = await startRedis()
  onTestFinished(() => redis.stop())
  const proxy = await startFaultProxy({ port: redis.port })
  onTestFinished(() => proxy.stop())
  const { connection } = connect(`redis://127.0.0.1:${proxy.port}`)
  await connection.ready(20_000)
  await proxy.setMode({ kind: 'freeze' })
  await expect(connection.client.get('x')).rejects.toThrow('Command timed out')
  await until('the connection was given up', () => connection.client.status !== 'ready')
  await proxy.setMode({ kind: 'pass' })
  expect(await connection.ready(20_000)).toBe(true)
  expect(await connection.client.get('x')).toBe(null)
})

test('closing while Redis is away ends the attempts', async () => {
  const redis = await startRedis()
  onTestFinished(() => redis.stop())
  await redis.kill()
  const { connection, faults } = connect(redis.url)
  await until('it waits for the next attempt', () => connection.client.status === 'reconnecting')
  await connection.close()
  const before = faults.length
  await redis.restart()
  expect(await connection.ready(300)).toBe(false)
  expect(faults.length).toBe(before)
})

test('closing ends soon though the other side does not close', async () => {
  const redis = await startRedis()
  onTestFinished(() => redis.stop())
  const { connection } = connect(redis.url)
  await connection.ready(20_000)
  redis.freeze()
  const start = performance.now()
  await connection.close()
  expect(performance.now() - start).toBeLessThan(5000)
})

test('READONLY makes it connect anew, once a second at most, and reads go on afterwards', async () => {
  const primary = await startRedis()
  onTestFinished(() => primary.stop())
  const replica = await startRedis({ args: ['--replicaof', '127.0.0.1', String(primary.port)] })
  onTestFinished(() => replica.stop())
  const { connection } = connect(replica.url)
  expect(await connection.ready(20_000)).toBe(true)
  let connects = 0
  connection.client.on('connect', () => connects++)
  const replies = await Promise.allSettled([1, 2, 3].map(() => connection.client.set('k', 'v')))
  for (const reply of replies) expect(reply.status).toBe('rejected')
  await until('connected again', () => connects === 1 && connection.client.status === 'ready')
  await expect(connection.client.set('k', 'v')).rejects.toThrow('READONLY')
  expect(await connection.client.get('k')).toBe(null)
  expect(connects).toBe(1)
})

test('credentials are in no error: not when they are wrong, and not when the server repeats them', async () => {
  const redis = await startRedis({ args: ['--requirepass', 'right'] })
  onTestFinished(() => redis.stop())
  const parrot = createServer((socket) => {
    socket.on('error', () => {}) // cut off by the client
    socket.on('data', (data) => socket.write(`-ERR no, ${JSON.stringify(data.toString())}\r\n`))
  }).listen(0, '127.0.0.1')
  await new Promise((resolve) => parrot.once('listening', resolve))
  onTestFinished(() => void parrot.close())
  for (const port of [redis.port, (parrot.address() as { port: number }).port]) {
    const driverErrors: unknown[] = []
    const { connection, faults } = connect(`redis://someone:hunter2@127.0.0.1:${port}`)
    connection.client.on('error', (error) => driverErrors.push(error))
    await until('the handshake failed', () => faults.length > 0 && driverErrors.length > 0)
    const shown = inspect(faults, { depth: 9, showHidden: true })
    expect(shown).not.toContain('hunter2')
    if (port !== redis.port) expect(shown).toContain('***')
    expect(driverErrors.some((error) => 'command' in (error as object))).toBe(false)
    await connection.close()
  }
  const { connection } = connect(`redis://:right@127.0.0.1:${redis.port}`)
  expect(await connection.ready(20_000)).toBe(true)
})

test('an unusable URL throws at once', () => {
  expect(() => connectRedis('http://127.0.0.1')).toThrow(TypeError)
})
