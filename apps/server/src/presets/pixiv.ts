import { ConfigError } from '../config/errors.ts'

/** What a preset makes of its own settings. */
export interface PresetResult {
  /** A part of a configuration, not checked yet; files and flags go over it. */
  readonly config: unknown
  readonly warnings: readonly string[]
  /** The variable that set a key: path joined by dots -> name. For error messages. */
  readonly origins: Readonly<Record<string, string>>
}

type Environment = Readonly<Record<string, string | undefined>>

/** The User-Agent of a desktop browser: the image servers refuse what looks like a robot. */
const USER_AGENT = 'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 Safari/537.36'

/** Whether the environment is that of the image proxy and of nothing else. */
export function isPixivEnvironment(env: Environment): boolean {
  return env.S3_ENDPOINT !== undefined && (env.UPSTREAM_HOST !== undefined || env.UPSTREAM_REFERER !== undefined)
}

/** Where the image servers' answers are kept is not for the client to know; how long it may keep them is. */
const CLIENT_LIFETIME = 'public, max-age=604800'
/** Refusals are remembered briefly, so that a wrong Referer or too many requests do not hammer the origin. */
const REFUSAL_LIFETIME = '1m'

/**
 * The image proxy for pixiv, from its own environment variables: paths are forwarded to UPSTREAM_HOST with UPSTREAM_REFERER, images are kept in S3
 * and failures in Redis. Pure; reads no other variables than its own, and leaves bad values for the checks of the configuration to name.
 * Throws `ConfigError` where it is asked for encryption, which it cannot give.
 */
export function pixivPreset(env: Environment): PresetResult {
  const warnings: string[] = []
  const origins: Record<string, string> = {}
  /** The variable that sets the keys `paths`; an empty one counts as not set. */
  const read = (name: string, ...paths: string[]): string | undefined => {
    for (const path of paths) origins[path] = name
    return env[name] === '' ? undefined : env[name]
  }

  const port = read('SERVER_PORT', 'listeners.0.port') ?? '443'
  const cert = read('SSL_CERT_PATH', 'listeners.0.tls.cert')
  const key = read('SSL_KEY_PATH', 'listeners.0.tls.key')
  if (cert === undefined && key === undefined) warnings.push('SSL_CERT_PATH and SSL_KEY_PATH are not set: the listener speaks plain HTTP')
  if (isTrue(env.S3_ENCRYPTION_ENABLED)) {
    throw new ConfigError([{ path: [], message: 'encryption is not supported: objects would be stored readable' }], () => 'environment variable S3_ENCRYPTION_ENABLED')
  }
  if (isTrue(env.S3_COMPRESSION_ENABLED)) warnings.push('S3_COMPRESSION_ENABLED is not supported: objects are stored as they are')
  const logLevel = rustLogLevel(read('RUST_LOG', 'observability.logLevel'))

  const config = {
    listeners: [{ host: read('SERVER_HOST', 'listeners.0.host') ?? '0.0.0.0', port: /^\d+$/.test(port) ? Number(port) : port, ...((cert ?? key) !== undefined && { tls: { cert, key } }) }],
    pools: {
      pixiv: {
        targets: [read('UPSTREAM_HOST', 'pools.pixiv.targets.0') ?? 'https://i.pximg.net'],
        timeouts: { headers: '30s', body: '30s' },
        forwardClientHeaders: false,
        xForwarded: false,
        requestHeaders: { set: { referer: read('UPSTREAM_REFERER', 'pools.pixiv.requestHeaders.set.referer') ?? 'https://www.pixiv.net/', 'user-agent': USER_AGENT } }
      }
    },
    routes: [
      {
        pool: 'pixiv',
        methods: ['GET', 'HEAD'],
        dropQuery: true,
        responseHeaders: { set: { 'cache-control': CLIENT_LIFETIME }, always: { 'access-control-allow-origin': '*' } }
      }
    ],
    cache: {
      tiers: [
        { store: 'memory', admit: 'content' },
        { store: 'redis', admit: 'negative' },
        { store: 's3', admit: 'content' }
      ],
      rules: [{ status: 200, ttl: '365d' }],
      negative: {
        404: seconds(read('CACHE_404_TTL', 'cache.negative.404') ?? '86400'),
        '5xx': seconds(read('CACHE_ERROR_TTL', 'cache.negative.5xx', 'cache.negative.connectError') ?? '1200'),
        connectError: seconds(env.CACHE_ERROR_TTL || '1200'),
        403: REFUSAL_LIFETIME,
        429: REFUSAL_LIFETIME
      }
    },
    stores: {
      redis: { url: read('REDIS_URL', 'stores.redis.url') ?? 'redis://localhost:6379' },
      s3: {
        endpoint: read('S3_ENDPOINT', 'stores.s3.endpoint'),
        bucket: read('S3_BUCKET', 'stores.s3.bucket'),
        region: read('S3_REGION', 'stores.s3.region') ?? 'us-east-1',
        accessKeyId: read('S3_ACCESS_KEY', 'stores.s3.accessKeyId'),
        secretAccessKey: read('S3_SECRET_KEY', 'stores.s3.secretAccessKey'),
        createBucket: true,
        // The origin is far away and counts requests: its copy here is worth waiting for.
        firstByteTimeout: '2s'
      }
    },
    observability: { cacheStatusHeader: 'x-cache-status', ...(logLevel !== undefined && { logLevel }) }
  }
  return { config, warnings, origins }
}

function isTrue(value: string | undefined): boolean {
  return value?.toLowerCase() === 'true'
}

/** Whole seconds, as these variables have them. Anything else is left as it is, to be refused by name. */
function seconds(text: string): string {
  return /^\d+$/.test(text) ? `${text}s` : text
}

/** `info` of `pixiv_image_proxy=info,tower_http=warn`; a level alone is for everything. */
function rustLogLevel(filter: string | undefined): string | undefined {
  if (filter === undefined) return undefined
  const parts = filter.split(',').map((part) => part.trim())
  const level = parts.find((part) => part.startsWith('pixiv_image_proxy='))?.slice('pixiv_image_proxy='.length) ?? parts.find((part) => !part.includes('='))
  return level === 'off' ? 'silent' : level
}
