import { randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { sharedS3, startOrigin, startRedis } from '@proxy/testing'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Config } from '../src/index.ts'
import { ask, listeningUrl, runCli, startProxy, tempFile, tempFolder, until } from './helpers.ts'

const key = 'correct-horse-battery'
/** Whatever port a server listens on, it is asked for the same URL. */
const host = 'images.example.org'

interface Subject {
  readonly url: string
}

const status = async ({ url }: Subject, path: string): Promise<string> => String((await ask(url + path, { headers: { host } })).headers['cache-status']).replace(/.*?; (hit|fwd=[\w-]+).*/, '$1')

const purge = ({ url }: Subject, what: object) => ask(`${url}/_proxy/purge`, { method: 'POST', body: JSON.stringify(what), headers: { 'x-api-key': key } })

async function origin(): Promise<string> {
  const { url, close } = await startOrigin((request, response) => response.writeHead(200, { 'cache-control': 'max-age=600' }).end(request.url))
  onTestFinished(close)
  return url
}

const withTiers = (target: string, tiers: Config['cache'], stores: Config['stores']): Config => ({
  pools: { web: { targets: [target] } },
  routes: [{ pool: 'web' }, { pool: 'web', match: { path: '/b' } }],
  ...(tiers !== undefined && { cache: tiers }),
  ...(stores !== undefined && { stores }),
  admin: { key }
})

/** The built server as a process of its own. */
async function startServer(config: Config) {
  const cli = runCli(['--config', tempFile(JSON.stringify({ listeners: [{ port: 0 }], ...config }), 'proxy.json')])
  return {
    url: await listeningUrl(cli),
    async kill() {
      cli.child.kill('SIGKILL')
      await cli.exit
    }
  }
}

describe('on disk', () => {
  test('what was purged before a kill -9 is not served after it', async () => {
    const config = withTiers(await origin(), { tiers: ['memory', 'disk'] }, { disk: { directory: join(tempFolder(), 'cache') } })
    const first = await startServer(config)
    for (const path of ['/a', '/b', '/c', '/d']) {
      expect(await status(first, path)).toBe('fwd=uri-miss')
      await until(async () => (await status(first, path)) === 'hit')
    }
    // Once memory has them the disk may still be writing.
    await first.kill()
    const second = await startServer(config)
    for (const path of ['/a', '/b', '/c', '/d']) await until(async () => (await status(second, path)) === 'hit')
    expect(await purge(second, { url: `http://${host}/a` })).toMatchObject({ status: 200, text: '{"touched":2}' })
    expect((await purge(second, { prefix: `http://${host}/b` })).status).toBe(200)
    expect((await purge(second, { url: `http://${host}/d`, soft: true })).status).toBe(200)
    await second.kill()
    const third = await startServer(config)
    expect(await status(third, '/c')).toBe('hit')
    expect([await status(third, '/a'), await status(third, '/b'), await status(third, '/d')]).toEqual(['fwd=uri-miss', 'fwd=uri-miss', 'fwd=stale'])
    await until(async () => (await status(third, '/a')) === 'hit')
  })

  test('where it cannot be recorded the answer is 503, it counts here, and the fault is told', async () => {
    const directory = tempFolder()
    // A file where the folder of the log is to be.
    await writeFile(join(directory, 'purges'), 'x')
    const proxy = await startProxy(withTiers(await origin(), { tiers: ['memory', 'disk'] }, { disk: { directory } }))
    await status(proxy, '/a')
    await until(async () => (await status(proxy, '/a')) === 'hit')
    const answer = await purge(proxy, { url: `http://${host}/a` })
    expect([answer.status, answer.text]).toEqual([503, '{"error":"purged in this process only, which goes on trying to record it: DISK_IO"}'])
    expect(await status(proxy, '/a')).toBe('fwd=uri-miss')
    expect(proxy.lines.find(({ msg }) => msg === 'admin call')).toMatchObject({ status: 503, details: { url: `http://${host}/a`, error: 'DISK_IO' } })
    expect(proxy.lines.find(({ msg }) => msg === 'store failed')).toMatchObject({ store: 'disk' })
    expect((await ask(`${proxy.url}/_proxy/metrics`)).text).toMatch(/proxy_store_errors_total\{store="disk"\} [1-9]/)
  })
})

describe('in Redis', () => {
  async function startPair() {
    const redis = await startRedis()
    onTestFinished(() => redis.stop())
    const config = withTiers(await origin(), { tiers: ['memory', 'redis'] }, { redis: { url: redis.url, commandTimeout: '5s' } })
    return { redis, config, pair: [await startServer(config), await startServer(config)] as const }
  }

  test('processes hear of what the others purge, and those that start later know it', async () => {
    const { config, pair } = await startPair()
    const [one, two] = pair
    for (const path of ['/a', '/b', '/c']) {
      await status(one, path)
      await until(async () => (await status(one, path)) === 'hit' && (await status(two, path)) === 'hit')
    }
    // In memory and in Redis.
    expect(await purge(one, { url: `http://${host}/a` })).toMatchObject({ status: 200, text: '{"touched":2}' })
    await until(async () => (await status(two, '/a')) !== 'hit')
    expect(await status(two, '/c')).toBe('hit')
    expect((await purge(two, { all: true, soft: true })).status).toBe(200)
    await two.kill()
    const third = await startServer(config)
    expect([await status(third, '/b'), await status(third, '/c')]).toEqual(['fwd=stale', 'fwd=stale'])
  })

  test('killed and started again, empty: the purge is answered 503, counts here, and reaches the others', async () => {
    const { redis, pair } = await startPair()
    const [one, two] = pair
    for (const path of ['/a', '/c']) {
      await status(one, path)
      await until(async () => (await status(one, path)) === 'hit' && (await status(two, path)) === 'hit')
    }
    await redis.kill()
    await until(async () => (await purge(one, { url: `http://${host}/none` })).status === 503)
    const answer = await purge(one, { url: `http://${host}/a` })
    expect([answer.status, answer.text]).toEqual([503, expect.stringContaining('REDIS_')])
    expect(await status(one, '/a')).not.toBe('hit')
    expect([await status(two, '/a'), await status(two, '/c')]).toEqual(['hit', 'hit'])
    await redis.restart()
    await until(async () => (await status(two, '/a')) !== 'hit')
    expect(await status(two, '/c')).toBe('hit')
  })

  test('away at the start: what others stored is confirmed before it is served', async () => {
    const redis = await startRedis()
    onTestFinished(() => redis.stop())
    const directory = tempFolder()
    const config = withTiers(await origin(), { tiers: ['redis', 'disk'] }, { redis: { url: redis.url, commandTimeout: '5s' }, disk: { directory } })
    const first = await startServer(config)
    await status(first, '/a')
    await until(async () => (await status(first, '/a')) === 'hit')
    await redis.kill()
    // From the disk: what it had read of the log holds.
    expect(await status(first, '/a')).toBe('hit')
    await first.kill()
    const second = await startServer(config)
    expect(await status(second, '/a')).toBe('fwd=stale')
    await until(async () => (await status(second, '/a')) === 'hit')
  })
})

test('in S3 alone: what was purged is removed from the bucket, and a process that starts later does not find it', async () => {
  const { endpoint, region, accessKeyId, secretAccessKey } = await sharedS3()
  const s3 = { endpoint, region, accessKeyId, secretAccessKey, bucket: `purges-${randomBytes(6).toString('hex')}`, createBucket: true, firstByteTimeout: '5s' }
  const config = withTiers(await origin(), { tiers: ['s3'] }, { s3 })
  const first = await startServer(config)
  for (const path of ['/a', '/c']) {
    await status(first, path)
    await until(async () => (await status(first, path)) === 'hit')
  }
  expect(await purge(first, { url: `http://${host}/a` })).toMatchObject({ status: 200, text: '{"touched":1}' })
  await first.kill()
  const second = await startServer(config)
  expect([await status(second, '/a'), await status(second, '/c')]).toEqual(['fwd=uri-miss', 'hit'])
})
