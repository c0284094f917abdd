import { startRedis } from '@proxy/testing'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { tempFolder } from '../helpers.ts'
import { Client, openClients, states } from './client.ts'
import { eventually, startOriginProcess, startServerProcess, TEST_MS, untilInFlight } from './parts.ts'

vi.setConfig({ testTimeout: TEST_MS })

const CLIENTS = 1000

/** Until no client expects more. */
function untilSettled(clients: readonly Client[]): Promise<void> {
  return eventually(() => clients.every(({ state }) => state !== 'waiting' && state !== 'reading'))
}

/** How many got which status. */
function statuses(clients: readonly Client[]): Record<number, number> {
  const counts: Record<number, number> = {}
  for (const { status } of clients) counts[status] = (counts[status] ?? 0) + 1
  return counts
}

describe('who reads nothing', () => {
  const bytes = 20_000_000
  const path = `/${bytes}/pace`

  // More than the buffers of two kernels hold: who stops has it neither in one of them nor in the other.
  test.each([
    ['memory', 'leader'],
    ['memory', 'joiner'],
    ['disk', 'leader'],
    ['disk', 'joiner'],
    ['memory+disk', 'leader'],
    ['memory+disk', 'joiner']
  ] as const)('is waited for by nobody, and gets everything later (tier %s, it is a %s)', async (tier, role) => {
    const origin = await startOriginProcess()
    const server = await startServerProcess(origin, {
      cache: { tiers: tier === 'memory+disk' ? ['memory', 'disk'] : [tier] },
      stores: { ...(tier !== 'memory' && { disk: { directory: tempFolder(), maxSize: '60MB', maxEntrySize: '25MB' } }) }
    })
    origin.limit(path, 1000)
    const clients = await openClients(server.port, 10)
    const [first, ...later] = clients as [Client, ...Client[]]
    first.ask(path)
    await eventually(() => first.received === 1000)
    for (const client of later) client.ask(path)
    await eventually(() => later.every(({ received }) => received === 1000))
    const stopped = role === 'leader' ? first : (later[0] as Client)
    stopped.pause()
    const others = clients.filter((client) => client !== stopped)
    // Each piece leaves the origin when all others have had the one before.
    for (let sent = 1_000_000; sent <= bytes; sent += 1_000_000) {
      origin.limit(path, sent)
      await eventually(() => others.every(({ received, state }) => received === sent || state === 'cut'))
    }
    await untilSettled(others)
    expect(states(others)).toEqual({ complete: 9 })
    expect(stopped.state).toBe('reading')
    stopped.resume()
    await untilSettled([stopped])
    expect(stopped.state).toBe('complete')
    expect(origin.asked).toEqual([path])
  })
})

describe('who leaves', () => {
  test('the leader: the fill goes on for those who joined', async () => {
    const origin = await startOriginProcess()
    const server = await startServerProcess(origin)
    const path = '/20000000/led'
    origin.limit(path, 100_000)
    const [leader, ...joiners] = (await openClients(server.port, 100)) as [Client, ...Client[]]
    leader.ask(path)
    await eventually(() => leader.received === 100_000)
    for (const client of joiners) client.ask(path)
    await eventually(() => joiners.every(({ received }) => received === 100_000))
    leader.leave()
    await untilInFlight(server, joiners.length)
    origin.release(path)
    await untilSettled(joiners)
    expect(states(joiners)).toEqual({ complete: joiners.length })
    expect([origin.asked, origin.left]).toEqual([[path], []])
  })

  test('all: what is missing is fetched where it is little, and given up where it is much', async () => {
    const origin = await startOriginProcess()
    const server = await startServerProcess(origin)
    // 8 MiB are little.
    const [little, much] = ['/8000000/little', '/20000000/much']
    const clients = await openClients(server.port, 100)
    for (const path of [little, much]) {
      origin.limit(path, 100_000)
      for (const client of clients.slice(path === little ? 0 : 50, path === little ? 50 : 100)) client.ask(path)
    }
    await eventually(() => clients.every(({ received }) => received === 100_000))
    for (const client of clients) client.leave()
    await eventually(() => origin.left.length > 0)
    origin.release(little)
    origin.release(much)
    expect(origin.left).toEqual([much])
    const later = await Client.open(server.port)
    later.ask(little)
    await untilSettled([later])
    expect([later.state, later.cacheStatus]).toEqual(['complete', expect.not.stringContaining('stored')])
    later.ask(much)
    await untilSettled([later])
    expect([later.state, later.cacheStatus]).toEqual(['complete', expect.stringContaining('; stored')])
    expect(origin.asked.toSorted()).toEqual([much, much, little])
  })
})

describe('an origin that fails 1000 clients', () => {
  test.each(['/5000000/cut', '/5000000/chunked/cut'])(
    'in the middle of the body: none takes it for complete, nobody asks again for them, and they are one request when they come back (%s)',
    async (path) => {
      const origin = await startOriginProcess()
      const server = await startServerProcess(origin)
      const clients = await openClients(server.port, CLIENTS)
      origin.limit(path, 1_000_000)
      for (const client of clients) client.ask(path)
      await eventually(() => clients.every(({ received }) => received === 1_000_000))
      origin.cut(path, 1_000_000)
      await untilSettled(clients)
      expect(states(clients)).toEqual({ cut: CLIENTS })
      expect(origin.asked).toEqual([path])

      const again = await openClients(server.port, CLIENTS)
      for (const client of again) client.ask(path)
      await untilSettled(again)
      expect(states(again)).toEqual({ complete: CLIENTS })
      expect(origin.asked).toEqual([path, path])
    }
  )

  test('before the header: one of them asks once more for all', async () => {
    const origin = await startOriginProcess()
    const server = await startServerProcess(origin)
    const path = '/100000/early'
    const clients = await openClients(server.port, CLIENTS)
    origin.limit(path, -1)
    for (const client of clients) client.ask(path)
    await untilInFlight(server, CLIENTS)
    origin.cut(path, -1)
    await untilSettled(clients)
    expect(states(clients)).toEqual({ complete: CLIENTS })
    expect(statuses(clients)).toEqual({ 200: CLIENTS - 1, 502: 1 })
    expect(origin.asked).toEqual([path, path])
  })

  // A store that gives nothing of an entry before it has all of it: who comes when the window has passed the beginning waits for the end.
  test('in the middle of the body, with those waiting for whom its beginning has passed: one of them asks once more for all', async () => {
    const redis = await startRedis()
    onTestFinished(() => redis.stop())
    const origin = await startOriginProcess()
    const server = await startServerProcess(origin, { cache: { tiers: ['redis'] }, stores: { redis: { url: redis.url, maxEntrySize: '8MiB', commandTimeout: '20s' } } })
    const path = '/5000000/late'
    origin.limit(path, 3_000_000)
    const [leader, ...joiners] = (await openClients(server.port, CLIENTS)) as [Client, ...Client[]]
    leader.ask(path)
    await eventually(() => leader.received === 3_000_000)
    for (const client of joiners) client.ask(path)
    await untilInFlight(server, CLIENTS)
    origin.cut(path, 3_000_000)
    await untilSettled([leader, ...joiners])
    expect(leader.state).toBe('cut')
    expect(states(joiners)).toEqual({ complete: CLIENTS - 1 })
    expect(origin.asked).toEqual([path, path])
  })
})
