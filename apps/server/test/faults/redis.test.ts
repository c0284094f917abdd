import { type RedisServer, rawExchange, type S3Service, sharedS3, startRedis } from '@proxy/testing'
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { Config } from '../../src/index.ts'
import { until } from '../helpers.ts'
import { mixture, startContentOrigin } from './content.ts'
import { ask, load, type Outcome, problems, type Subject, slowerThan, untilStored, waitMs } from './load.ts'
import { expectSound, imageProxy, memoryAndRedis, memoryFirst, memoryOnly, type Places, readMetrics, secretName, startInProcess } from './subject.ts'

/** Far above what a request takes here, so that only those that waited for Redis are as slow. */
const COMMAND_TIMEOUT_MS = 800
const CLIENTS = 20

let s3: S3Service

beforeAll(async () => {
  s3 = await sharedS3()
})

/** A Redis that wants a password, an origin, and configurations for both. */
async function startParts(args: readonly string[] = []) {
  const password = secretName('password')
  const bucket = secretName('bucket')
  const [redis, origin] = await Promise.all([startRedis({ args: ['--requirepass', password, ...args] }), startContentOrigin()])
  onTestFinished(() => redis.stop())
  const places = { origin: origin.url, redis: `redis://:${password}@127.0.0.1:${redis.port}` }
  return {
    redis,
    origin,
    places,
    secrets: [password, bucket, s3.secretAccessKey, s3.accessKeyId],
    images: () => imageProxy({ ...places, s3, bucket }),
    says: async (command: string) => (await rawExchange(redis.port, `AUTH ${password}\r\n${command}\r\nQUIT\r\n`)).toString('latin1')
  }
}

/** Redis may be silent: it is waited for so long and no longer. */
function hasty(config: Config, { redis: url }: Places): Config {
  return { ...config, stores: { ...config.stores, redis: { url, commandTimeout: `${COMMAND_TIMEOUT_MS}ms` } } }
}

/** 25 paths that the origin does not have, again and again. */
const absent = (name: string) => (i: number) => `/none/${name}/${i % 25}`

/** As long as Redis is away nothing is remembered, so it is fetched again. */
async function untilRemembered(subject: Subject, path: string): Promise<void> {
  await until(async () => (await ask(subject, path)).cache === 'NEGATIVE')
}

/** Failures are fetched from the origin once and are in Redis from then on. */
async function expectRemembering(subject: Subject, asked: (prefix: string) => Record<string, number>, name: string): Promise<void> {
  await untilRemembered(subject, `/none/${name}-first`)
  const path = absent(name)
  expect(problems(await load(subject, { path, requests: 25 }))).toEqual([])
  const stored = await Promise.all(Array.from({ length: 25 }, (_, i) => untilStored(subject, path(i))))
  expect(problems(stored)).toEqual([])
  expect(stored.filter(({ cache }) => cache !== 'NEGATIVE')).toEqual([])
  expect(problems(await load(subject, { path, requests: 50 }))).toEqual([])
  expect(Object.values(asked(`/none/${name}/`))).toEqual(Array.from({ length: 25 }, () => 1))
}

const cachesOf = (outcomes: readonly Outcome[], kind: string): string[] => [...new Set(outcomes.filter(({ path }) => path.startsWith(`/${kind}/`)).map(({ cache }) => cache))].sort()

describe('Redis for failures', () => {
  test('away at the start: the server starts and answers everything; when Redis comes, failures are remembered', async () => {
    const { redis, origin, places, images, secrets } = await startParts()
    await redis.kill()
    const startedMs = performance.now()
    const subject = await startInProcess(images())
    // Some 0.2 s, and the criterion; whoever waits for Redis waits longer.
    expect(performance.now() - startedMs).toBeLessThan(2000)
    const outcomes = await load(subject, { path: mixture('away') })
    expect(problems(outcomes)).toEqual([])
    // Content is kept all the same.
    expect(cachesOf(outcomes, '1k')).toContain('HIT')
    expect(cachesOf(outcomes, 'none')).not.toContain('NEGATIVE')

    // What it costs that Redis is away, beside a server at the same time that knows none.
    const [without, control] = await Promise.all([startInProcess(memoryAndRedis(places)), startInProcess(memoryOnly(places))])
    const path = mixture('away')
    const [these, those] = await Promise.all([load(without, { path, clients: CLIENTS / 2, requests: 250 }), load(control, { path, clients: CLIENTS / 2, requests: 250 })])
    expect(problems([...these, ...those])).toEqual([])
    // Twice as long allows for what else the machine does; a wait for the service would be in the median.
    expect(waitMs(these, 0.5)).toBeLessThan(2 * waitMs(those, 0.5) + 50)
    expect(waitMs(these, 0.99)).toBeLessThan(2 * waitMs(those, 0.99) + 100)

    await redis.restart()
    const backMs = performance.now()
    await untilRemembered(subject, '/none/back')
    // At most one second between two attempts to connect.
    expect(performance.now() - backMs).toBeLessThan(10_000)
    await expectRemembering(subject, origin.asked, 'later')
    await expectSound(subject, { storeErrors: ['redis'], secrets })
  })

  test('killed under load: nobody notices; when it is back, failures are remembered again', async () => {
    const { redis, origin, images, secrets } = await startParts()
    const subject = await startInProcess(images())
    await expectRemembering(subject, origin.asked, 'before')

    const path = (i: number): string => (i % 2 === 0 ? absent('before')(i / 2) : mixture('killed')(i))
    const outcomes = await load(subject, { path, at: { 150: () => redis.kill() } })
    expect(problems(outcomes)).toEqual([])
    const during = await load(subject, { path: absent('before'), requests: 100 })
    expect(problems(during)).toEqual([])
    expect(cachesOf(during, 'none')).not.toContain('NEGATIVE')

    await redis.restart()
    await expectRemembering(subject, origin.asked, 'after')
    await expectSound(subject, { storeErrors: ['redis'], secrets })
  })

  test('stopped under load: a few wait once, then nobody does; late replies reach nobody else', async () => {
    const { redis, origin, places, secrets, says } = await startParts()
    const subject = await startInProcess(hasty(memoryAndRedis(places), places))
    await expectRemembering(subject, origin.asked, 'before')

    // Failures that Redis has and failures that it has not, in turn: a reply that came to the wrong command would bring the wrong body.
    const path = (i: number): string => (i % 2 === 0 ? absent('before')(i / 2) : mixture('stopped')(i))
    const first = await load(subject, { clients: CLIENTS, path, at: { 150: () => redis.freeze() } })
    const startedMs = performance.now()
    const lasting = await load(subject, { clients: CLIENTS, path, requests: until(() => performance.now() > startedMs + 2500) })
    expect(problems([...first, ...lasting])).toEqual([])
    expect(lasting.length).toBeGreaterThan(100)
    // Those under way when it fell silent, and nobody after that.
    expect(slowerThan(first, COMMAND_TIMEOUT_MS * 0.9)).toBeLessThanOrEqual(CLIENTS)
    expect(slowerThan(first, COMMAND_TIMEOUT_MS * 0.9)).toBeGreaterThan(0)
    expect(slowerThan(lasting, COMMAND_TIMEOUT_MS * 0.9)).toBe(0)

    redis.thaw()
    // What lay in its sockets is what it was sent meanwhile.
    const pings = /cmdstat_ping:calls=(\d+)/.exec(await says('INFO commandstats'))
    expect(Number(pings?.[1] ?? 0)).toBeLessThanOrEqual(4)
    expect(problems(await load(subject, { clients: CLIENTS, path: absent('before') }))).toEqual([])
    await expectRemembering(subject, origin.asked, 'after')
    await expectSound(subject, { storeErrors: ['redis'], secrets })
  })

  test('full: what it has is served, what it refuses comes from the origin, and it is not pestered', async () => {
    const { origin, places, secrets, says } = await startParts(['--maxmemory', '6mb', '--maxmemory-policy', 'noeviction'])
    const subject = await startInProcess(memoryAndRedis(places))
    await expectRemembering(subject, origin.asked, 'kept')

    // 20 KiB each: full after some 200.
    const filling = await load(subject, { path: (i) => (i % 2 === 0 ? `/none-20k/full/${i}` : absent('kept')(i)), requests: 800 })
    expect(problems(filling)).toEqual([])
    const refusals = async (): Promise<number> => Number(/errorstat_OOM:count=(\d+)/.exec(await says('INFO errorstats'))?.[1] ?? 0)
    const before = await refusals()
    expect(before).toBeGreaterThan(0)
    const refused = await load(subject, { path: (i) => `/none-20k/refused/${i}` })
    expect(problems(refused)).toEqual([])
    // Five failures in a row make it stop trying, then it is one probe a second, with those that were under way.
    expect((await refusals()) - before).toBeLessThanOrEqual(5 + CLIENTS)

    const asked = origin.requests.length
    const reads = await load(subject, { path: absent('kept') })
    expect(problems(reads)).toEqual([])
    expect(cachesOf(reads, 'none')).toEqual(['NEGATIVE'])
    expect(origin.requests.length).toBe(asked)

    await says('CONFIG SET maxmemory 0')
    await expectRemembering(subject, origin.asked, 'room')
    await expectSound(subject, { storeErrors: ['redis'], secrets })
  })
})

// A server that did not wait for its connection answered the first requests after a start without Redis, and said that Redis had failed.
test('a server that has just started finds what is remembered', async () => {
  const { origin, places, secrets } = await startParts()
  const config = memoryAndRedis(places)
  await untilRemembered(await startInProcess(config), '/none/known')
  const asked = origin.requests.length
  for (let i = 0; i < 20; i++) {
    const subject = await startInProcess(config)
    expect((await ask(subject, '/none/known')).cache).toBe('NEGATIVE')
    expect((await readMetrics(subject))('proxy_store_errors_total')).toBe(0)
    await expectSound(subject, { storeErrors: [], secrets })
  }
  expect(origin.requests.length).toBe(asked)
})

describe('memory first, Redis second', () => {
  const faults: readonly (readonly [string, (redis: RedisServer) => unknown, (redis: RedisServer) => unknown])[] = [
    ['killed', (redis) => redis.kill(), (redis) => redis.restart()],
    ['stopped', (redis) => redis.freeze(), (redis) => redis.thaw()]
  ]

  test.each(faults)('Redis %s: what memory has is served as before, everything else comes from the origin', async (name, fail, mend) => {
    const { redis, origin, places, secrets } = await startParts()
    const subject = await startInProcess(hasty(memoryFirst(places), places))
    const warm = (i: number): string => ['/1k/warm/', '/200k/warm/', '/none/warm/', '/error/warm/'][i % 4] + String(i % 40)
    expect(problems(await load(subject, { path: warm, requests: 40 }))).toEqual([])

    const outcomes = await load(subject, { clients: CLIENTS, path: mixture(name), at: { 150: () => fail(redis) } })
    expect(problems(outcomes)).toEqual([])
    const hits = await load(subject, { clients: CLIENTS, path: warm })
    expect(problems(hits)).toEqual([])
    expect([...new Set(hits.map(({ cache }) => cache))].sort()).toEqual(['HIT', 'NEGATIVE'])
    expect(slowerThan(hits, COMMAND_TIMEOUT_MS * 0.9)).toBe(0)
    // To look in Redis, and to write to it.
    expect(slowerThan(outcomes, COMMAND_TIMEOUT_MS * 0.9)).toBeLessThanOrEqual(2 * CLIENTS)
    for (const kind of ['1k', '200k', 'none', 'error']) expect(Object.values(origin.asked(`/${kind}/warm/`))).toEqual(Array.from({ length: 10 }, () => 1))

    await mend(redis)
    const errors = async () => (await readMetrics(subject))('proxy_store_errors_total', { store: 'redis' })
    // It takes writes and reads again: a miss in memory no longer counts a failure of Redis.
    let i = 0
    await until(async () => {
      const before = await errors()
      await ask(subject, `/none/${name}-mended/${i++}`)
      return (await errors()) === before
    })
    await expectSound(subject, { storeErrors: ['redis'], secrets })
  })
})
