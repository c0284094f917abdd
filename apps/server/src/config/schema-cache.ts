import { z } from 'zod'
import { fieldName, lifetime, size, text, textThat, timeout } from './scalars.ts'

export const storeNames = ['memory', 'disk', 'redis', 's3'] as const

const tierSchema = z
  .union([
    z.enum(storeNames),
    z.strictObject({
      store: z.enum(storeNames),
      /** `content`: answers below 400. `negative`: what is remembered as missing or failed. */
      admit: z.enum(['all', 'content', 'negative']).default('all')
    })
  ])
  .transform((tier) => (typeof tier === 'string' ? { store: tier, admit: 'all' as const } : tier))

const isStatus = (value: string): boolean => /^[1-5](?:\d\d|xx)$/.test(value)
const statusPattern = () => z.union([z.int().min(200).max(599), textThat((value) => (isStatus(value) ? undefined : 'is a status, such as 404, or a class, such as "5xx"'))])

const mediaRange = () => textThat((value) => (/^[\w!#$&^.+*-]+\/[\w!#$&^.+*-]+$/.test(value) ? undefined : 'is a media type, such as "application/json", or a range, such as "image/*"'))

export type TierSettings = z.output<typeof tierSchema>

export const cacheSchema = z.strictObject({
  /** Nearest first. Default: memory, then what `stores` configures of disk, redis and s3. */
  tiers: z.array(tierSchema).min(1).optional(),
  /** Lifetimes that take the place of the origin's. The first rule that fits wins. */
  rules: z
    .array(
      z.strictObject({
        contentType: z.union([mediaRange(), z.array(mediaRange()).min(1)]).optional(),
        status: z.union([statusPattern(), z.array(statusPattern()).min(1)]).optional(),
        ttl: lifetime()
      })
    )
    .prefault([]),
  /** Lifetimes of failures by status, and of `connectError`: no answer at all. */
  negative: z
    .record(
      textThat((key) => (key === 'connectError' || (isStatus(key) && key[0] !== '1') ? undefined : '"connectError", a status such as 404 or a class such as "5xx" is wanted')),
      lifetime()
    )
    .prefault({}),
  /** How stale an answer may be served where its origin does not say. */
  stale: z
    .strictObject({
      /** While it is revalidated in the background. */
      whileRevalidate: lifetime().prefault('0s'),
      /** When no answer of the origin is to be had. */
      ifUnreachable: lifetime().prefault('1d'),
      /** In place of a 500, 502, 503 or 504. */
      ifError: lifetime().prefault('0s'),
      /** How long an answer that can be revalidated is kept for that. */
      keep: lifetime().prefault('1d')
    })
    .prefault({}),
  /** Lifetime of answers that say nothing of theirs, as a share of the time since they were last modified. */
  heuristic: z.union([z.literal(false), z.strictObject({ fraction: z.number().gt(0).max(1).default(0.1), max: lifetime().prefault('1d') })]).prefault({}),
  /** Fields that take the place of Cache-Control here, the most specific first. */
  targetedFields: z.array(fieldName()).prefault(['cdn-cache-control']),
  /** Larger answers are passed on and not kept. */
  maxObjectSize: size().prefault('64MiB')
})

/** The rest is checked by who connects; this much also where nobody does. */
function isRedisUrl(value: string): boolean {
  return (value.startsWith('/') && !value.startsWith('//')) || (/^rediss?:\/\/./.test(value) && URL.canParse(value))
}

export const storesSchema = z.strictObject({
  memory: z
    .strictObject({
      maxSize: size(1024).prefault('256MiB'),
      maxEntrySize: size().optional(),
      /** Which entry goes first. */
      eviction: z.enum(['s3-fifo', 'lru']).default('s3-fifo')
    })
    .prefault({}),
  disk: z
    .strictObject({
      /** Holds nothing else. */
      directory: text(),
      maxSize: size(1024 * 1024).prefault('10GiB'),
      maxEntrySize: size().optional(),
      fsync: z.boolean().default(false)
    })
    .optional(),
  redis: z
    .strictObject({
      /** `redis://[user:password@]host[:port][/db]`, `rediss://`. */
      url: textThat((value) => (isRedisUrl(value) ? undefined : 'not a Redis URL: expected redis://[user:password@]host[:port][/db], rediss://… or the path of a socket')),
      prefix: text().default('cache:'),
      commandTimeout: timeout().prefault('100ms'),
      connectTimeout: timeout().prefault('500ms'),
      maxEntrySize: size().prefault('1MiB')
    })
    .optional(),
  s3: z
    .strictObject({
      bucket: text(),
      endpoint: textThat((value) => (/^https?:\/\/[^/\s@]+\/?$/.test(value) && URL.canParse(value) ? undefined : 'is a URL such as https://s3.example.org')).optional(),
      region: text().optional(),
      accessKeyId: text().optional(),
      secretAccessKey: text().optional(),
      prefix: text().optional(),
      pathStyle: z.boolean().optional(),
      createBucket: z.boolean().default(false),
      firstByteTimeout: timeout().prefault('200ms'),
      requestTimeout: timeout().prefault('10s'),
      maxEntrySize: size().prefault('64MiB')
    })
    .optional()
})

export type StoreSettings = z.output<typeof storesSchema>
