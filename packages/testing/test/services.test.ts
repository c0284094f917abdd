import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { rawExchange } from '../src/raw-client.ts'
import { sharedRedisUrl, sharedS3, startServices } from '../src/services.ts'

beforeEach(() => {
  // the tests themselves may run with services given
  for (const name of ['REDIS_URL', 'S3_ENDPOINT', 'S3_ACCESS_KEY', 'S3_SECRET_KEY', 'S3_REGION', 'PROXY_TEST_SERVICES']) vi.stubEnv(name, '')
})
afterEach(() => {
  vi.unstubAllEnvs()
})

const ping = async (url: string) => (await rawExchange(Number(new URL(url).port), 'PING\r\n', { until: '\r\n' })).toString()

test('starts what the run needs and hands it over in one variable', async () => {
  const services = await startServices({ redis: true, s3: true })
  expect(Object.keys(services.env)).toEqual(['PROXY_TEST_SERVICES'])
  vi.stubEnv('PROXY_TEST_SERVICES', services.env.PROXY_TEST_SERVICES)
  const [redisUrl, s3] = await Promise.all([sharedRedisUrl(), sharedS3()])
  expect(JSON.parse(services.env.PROXY_TEST_SERVICES)).toEqual({
    redisUrl,
    s3: { endpoint: s3.endpoint, region: s3.region, accessKeyId: s3.accessKeyId, secretAccessKey: s3.secretAccessKey }
  })
  expect(await ping(redisUrl)).toBe('+PONG\r\n')
  await s3.createBucket('shared')
  await services.stop()
  await expect(ping(redisUrl)).rejects.toThrow(/ECONNREFUSED/)
  await expect(s3.createBucket('shared')).rejects.toThrow(/ECONNREFUSED/)
})

test('starts nothing that is not needed', async () => {
  const services = await startServices({ redis: false, s3: false })
  expect(services.env).toEqual({ PROXY_TEST_SERVICES: '{}' })
  await services.stop()
})

test('uses what the user gives, and says what is missing', async () => {
  vi.stubEnv('REDIS_URL', 'redis://example.test:1')
  vi.stubEnv('S3_ENDPOINT', 'http://example.test:2/')
  await expect(startServices({ redis: true, s3: true })).rejects.toThrow(/S3_ACCESS_KEY and S3_SECRET_KEY/)
  vi.stubEnv('S3_ACCESS_KEY', 'key')
  vi.stubEnv('S3_SECRET_KEY', 'secret')
  const s3 = { endpoint: 'http://example.test:2', region: 'us-east-1', accessKeyId: 'key', secretAccessKey: 'secret' }
  const services = await startServices({ redis: true, s3: true })
  expect(JSON.parse(services.env.PROXY_TEST_SERVICES)).toEqual({ redisUrl: 'redis://example.test:1', s3 })
  await services.stop()
  vi.stubEnv('PROXY_TEST_SERVICES', JSON.stringify({ redisUrl: 'redis://other.test:1', s3: { ...s3, endpoint: 'http://other.test' } }))
  expect(await sharedRedisUrl()).toBe('redis://example.test:1')
  expect(await sharedS3()).toMatchObject(s3)
})

test('starts a server on first use where the run has none, once', async () => {
  const [one, two] = await Promise.all([sharedRedisUrl(), sharedRedisUrl()])
  expect(one).toBe(two)
  expect(await ping(one)).toBe('+PONG\r\n')
})
