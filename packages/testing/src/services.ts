import { type RedisServer, startRedis } from './redis-server.ts'
import { type S3Server, type S3Service, s3Service, startS3 } from './s3-server.ts'
import type { S3Access } from './sigv4.ts'

/** What a run of the tests hands to its test processes, as JSON in the environment variable PROXY_TEST_SERVICES. */
interface TestServices {
  redisUrl?: string
  s3?: S3Access
}

export interface RunServices {
  /** To be set for the test processes: PROXY_TEST_SERVICES, and nothing else. */
  readonly env: { readonly PROXY_TEST_SERVICES: string }
  /** Ends what was started; services given by the user stay. */
  stop(): Promise<void>
}

/**
 * Starts the services a run shares, once for all its test processes.
 * Those the user gave by REDIS_URL or S3_ENDPOINT (with S3_ACCESS_KEY, S3_SECRET_KEY and S3_REGION, default us-east-1) are used as they are.
 * Rejects, with nothing left running, if one cannot be started.
 */
export async function startServices(needs: { redis: boolean; s3: boolean }): Promise<RunServices> {
  const given = givenServices()
  const started: (RedisServer | S3Server)[] = []
  const stop = async () => {
    await Promise.all(started.map((server) => server.stop()))
  }
  const start = async <Server extends RedisServer | S3Server>(starting: Promise<Server>): Promise<Server> => {
    const server = await starting
    started.push(server)
    return server
  }
  const results = await Promise.allSettled([needs.redis && !given.redisUrl ? start(startRedis()) : undefined, needs.s3 && !given.s3 ? start(startS3()) : undefined])
  const failure = results.find((result) => result.status === 'rejected')
  if (failure) {
    await stop()
    throw failure.reason
  }
  const [redis, s3] = results.map((result) => (result.status === 'fulfilled' ? result.value : undefined)) as [RedisServer?, S3Server?]
  const services: TestServices = {}
  const redisUrl = given.redisUrl ?? redis?.url
  if (redisUrl) services.redisUrl = redisUrl
  const access = given.s3 ?? s3
  if (access) services.s3 = accessOf(access)
  return { env: { PROXY_TEST_SERVICES: JSON.stringify(services) }, stop }
}

let ownRedis: Promise<RedisServer> | undefined
let ownS3: Promise<S3Server> | undefined

/** The Redis server of this run: REDIS_URL, else the one started for the run, else one started now that ends with this process. */
export async function sharedRedisUrl(): Promise<string> {
  const url = givenServices().redisUrl ?? runServices().redisUrl
  if (url) return url
  ownRedis ??= startRedis()
  return (await ownRedis).url
}

/** The S3 server of this run: S3_ENDPOINT, else the one started for the run, else one started now that ends with this process. */
export async function sharedS3(): Promise<S3Service> {
  const access = givenServices().s3 ?? runServices().s3
  if (access) return s3Service(access)
  ownS3 ??= startS3()
  return s3Service(accessOf(await ownS3))
}

function givenServices(): TestServices {
  const { REDIS_URL, S3_ENDPOINT, S3_ACCESS_KEY, S3_SECRET_KEY, S3_REGION } = process.env
  const given: TestServices = {}
  if (REDIS_URL) given.redisUrl = REDIS_URL
  if (S3_ENDPOINT) {
    if (!S3_ACCESS_KEY || !S3_SECRET_KEY) throw new Error('S3_ENDPOINT is set: S3_ACCESS_KEY and S3_SECRET_KEY are needed with it.')
    given.s3 = { endpoint: S3_ENDPOINT.replace(/\/+$/, ''), region: S3_REGION || 'us-east-1', accessKeyId: S3_ACCESS_KEY, secretAccessKey: S3_SECRET_KEY }
  }
  return given
}

function runServices(): TestServices {
  const { PROXY_TEST_SERVICES } = process.env
  return PROXY_TEST_SERVICES ? (JSON.parse(PROXY_TEST_SERVICES) as TestServices) : {}
}

function accessOf({ endpoint, region, accessKeyId, secretAccessKey }: S3Access): S3Access {
  return { endpoint, region, accessKeyId, secretAccessKey }
}
