import { createFakeClock } from '@proxy/testing'
import { expect, test } from 'vitest'
import { createLog } from '../src/logger.ts'
import { Metrics } from '../src/metrics.ts'
import { OncePerFault, StoreFaults } from '../src/store-faults.ts'
import { ask, silentPort, startProxy } from './helpers.ts'

test('each failure is counted, and one line a minute is written for each store', async () => {
  const lines: Record<string, unknown>[] = []
  const { logger } = createLog('info', { write: (line) => lines.push(JSON.parse(line) as Record<string, unknown>) })
  const metrics = new Metrics()
  const clock = createFakeClock()
  const faults = new StoreFaults({ logger, metrics, mask: (text) => text.replace('secret', '***'), clock })
  for (let i = 0; i < 100; i++) faults.report('redis', new Error('no secret'))
  faults.report('s3', new Error('away'))
  expect(lines).toMatchObject([
    { level: 'warn', store: 'redis', error: { message: 'no ***' } },
    { level: 'warn', store: 's3', error: { message: 'away' } }
  ])
  clock.advance(60_000)
  faults.report('redis', new Error('still'))
  expect(lines[2]).toMatchObject({ store: 'redis', unsaid: 99, error: { message: 'still' } })
  const text = await metrics.render()
  expect(text).toContain('proxy_store_errors_total{store="redis"} 101')
  expect(text).toContain('proxy_store_errors_total{store="s3"} 1')
})

test('a Redis that is away does not fill the log, and costs nobody an answer', async () => {
  const proxy = await startProxy({
    pools: { web: { targets: ['http://127.0.0.1:1'] } },
    cache: { tiers: ['memory', 'redis'] },
    stores: { redis: { url: 'redis://127.0.0.1:1' } },
    rateLimit: { algorithm: 'token-bucket', rate: 1000, burst: 1000, store: 'redis' }
  })
  for (let i = 0; i < 30; i++) expect((await ask(`${proxy.url}/${i}`)).status).toBe(502)
  expect(proxy.lines.filter(({ msg }) => msg === 'store failed')).toHaveLength(1)
  const counted = /proxy_store_errors_total\{store="redis"\} (\d+)/.exec((await ask(`${proxy.url}/_proxy/metrics`)).text)
  expect(Number(counted?.[1])).toBeGreaterThan(30)
})

// A command of Redis that failed was counted by the store and by the tier that had asked it: the rate of errors looked twice as bad as it was.
test('a fault that the store has told of is not told again by whoever asked the store', () => {
  const told: [string, unknown][] = []
  const faults = new OncePerFault((store, error) => told.push([store, error]))
  const [timeout, refused] = [new Error('timeout'), new Error('refused')]
  faults.ofStore('redis', timeout)
  faults.ofTier('redis', timeout)
  // One and the same error, each time that nothing was asked of a store that is away.
  faults.ofTier('redis', refused)
  faults.ofTier('redis', refused)
  expect(told).toEqual([
    ['redis', timeout],
    ['redis', refused],
    ['redis', refused]
  ])
})

test('what a tier has told of is not told again by the cache, which tells of what is its own alone', () => {
  const told: [string, unknown][] = []
  const faults = new OncePerFault((store, error) => told.push([store, error]))
  const [ofStore, ofTier, ofCache] = [new Error('timeout'), new Error('refused'), new Error('stalled')]
  faults.ofStore('redis', ofStore)
  faults.ofCache(ofStore)
  for (let i = 0; i < 2; i++) {
    faults.ofTier('redis', ofTier)
    faults.ofCache(ofTier)
  }
  faults.ofCache(ofCache)
  faults.ofCache('a text')
  expect(told).toEqual([
    ['redis', ofStore],
    ['redis', ofTier],
    ['redis', ofTier],
    ['cache', ofCache],
    ['cache', 'a text']
  ])
})

// Each has a time limit of its own: together they would keep the server from starting for twice as long.
test('stores that do not answer are waited for at the same time when the server starts', async () => {
  const address = `127.0.0.1:${await silentPort()}`
  const stores = { redis: { url: `rediss://${address}`, connectTimeout: '1400ms' }, s3: { bucket: 'b', endpoint: `http://${address}`, accessKeyId: 'a', secretAccessKey: 's' } }
  const timed = async (tiers: ('redis' | 's3')[]): Promise<number> => {
    const startedMs = performance.now()
    await startProxy({ pools: { web: { targets: ['http://127.0.0.1:1'] } }, cache: { tiers }, stores })
    return performance.now() - startedMs
  }
  await timed(['s3'])
  const [one, both] = [await timed(['redis']), await timed(['redis', 's3'])]
  expect(both).toBeLessThan(one * 1.6)
})
