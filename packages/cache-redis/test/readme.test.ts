import { readFileSync } from 'node:fs'
import { sampleMeta } from '@proxy/cache/conformance'
import { readmeExamples, sharedRedisUrl } from '@proxy/testing'
import { Redis } from 'ioredis'
import { expect, onTestFinished, test, vi } from 'vitest'
import { connectRedis } from '../src/connect.ts'
import { RedisPurgeLog } from '../src/purge-log.ts'
import { RedisStore } from '../src/redis-store.ts'
import { connected } from './support.ts'

const examples = readmeExamples(new URL('../README.md', import.meta.url), (from) => import(/* @vite-ignore */ from))

test('every block of code is an example that is run here', () => {
  expect(examples.names).toEqual(['alone', 'purges'])
})

test('the example runs and prints what it says', async () => {
  vi.stubEnv('REDIS_URL', await sharedRedisUrl())
  const log = vi.spyOn(console, 'log').mockImplementation(() => {})
  const warn = vi.spyOn(console, 'warn').mockImplementation(() => {})
  onTestFinished(() => {
    vi.unstubAllEnvs()
    vi.restoreAllMocks()
  })
  await examples.run('alone')
  const promised = [...examples.code('alone').matchAll(/console\.log\(.*\) \/\/ (.*)$/gm)].map((match) => match[1])
  expect(log.mock.calls.map((args) => args.join(' '))).toEqual(promised)
  expect(warn).not.toHaveBeenCalled()
})

test('purges are shared and kept', async () => {
  vi.stubEnv('REDIS_URL', await sharedRedisUrl())
  onTestFinished(() => void vi.unstubAllEnvs())
  const { touched } = await examples.run('purges', ['touched'])
  expect(touched).toBe(0)
  const log = new RedisPurgeLog({ redis: await connected(await sharedRedisUrl()), key: 'readme:purges' })
  onTestFinished(() => log.close())
  await log.prepare()
  expect(log.verdict(sampleMeta({ tags: ['gallery'], namespace: 'default' })).hardAt).toBeGreaterThan(0)
})

test('the defaults are those of the tables', async () => {
  const sections = examples.text.split(/^## /m)
  const table = (title: string): Map<string, string> => {
    const section = sections.find((one) => one.startsWith(title)) as string
    return new Map([...section.matchAll(/^\| `([\w.]+)` +\| ([^|]+)\|/gm)].map((match) => [match[1] as string, (match[2] as string).trim()]))
  }
  const connection = connectRedis('redis://127.0.0.1:1')
  onTestFinished(() => connection.close())
  const { options } = connection.client
  const connect = table('`connectRedis')
  expect([...connect.keys()]).toEqual(['commandTimeoutMs', 'connectTimeoutMs', 'socketTimeoutMs', 'maxReconnectDelayMs', 'connectionName', 'tls', 'onFault'])
  expect(connect.get('commandTimeoutMs')).toBe(String(options.commandTimeout))
  expect(connect.get('connectTimeoutMs')).toBe(String(options.connectTimeout))
  expect(connect.get('socketTimeoutMs')).toBe(String(options.socketTimeout))
  const store = table('`new RedisStore')
  expect(Object.fromEntries(store)).toMatchObject({
    prefix: '`cache:`',
    maxEntryBytes: '1 MiB',
    maxPendingBytes: '16 MiB',
    maxPendingCommands: '4096',
    commandTimeoutMs: '100',
    'breaker.failureThreshold': '5',
    'breaker.openMs': '1000'
  })
  const log = readFileSync(new URL('../src/purge-log.ts', import.meta.url), 'utf8')
  const logOptions = [...(/export interface RedisPurgeLogOptions \{([\s\S]*?)^\}/m.exec(log)?.[1] ?? '').matchAll(/^ {2}readonly (\w+)/gm)].map(([, name]) => name)
  const purges = table('`new RedisPurgeLog')
  expect([...purges.keys()]).toEqual(logOptions)
  for (const name of ['maxRecords', 'pollMs', 'clockMarginMs', 'commandTimeoutMs']) expect(log.replaceAll('_', '')).toContain(`options.${name} ?? ${purges.get(name) as string}`)

  const redis = await connected(await sharedRedisUrl())
  const meta = { v: 1 as const, url: '', namespace: '', status: 200, headers: {}, tags: [], requestTime: 0, responseTime: 0, initialAgeMs: 0, keepUntil: Date.now() + 60_000 }
  const dropped = (length: number, writers = 1): number => {
    const one = new RedisStore({ redis })
    for (let i = 0; i < writers; i++) one.put('k', { ...meta }).write(Buffer.alloc(length))
    return one.stats().droppedWrites
  }
  expect(dropped(1024 * 1024)).toBe(0)
  expect(dropped(1024 * 1024 + 1)).toBe(1)
  expect(dropped(1024 * 1024 - 1000, 16)).toBe(0)
  expect(dropped(1024 * 1024 - 1000, 17)).toBe(1)
  expect(redis).toBeInstanceOf(Redis)
})
