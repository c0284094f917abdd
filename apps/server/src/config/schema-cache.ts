import { z } from 'zod'
import { count, fieldName, lifetime, pathPrefix, size, text, textThat, timeout } from './scalars.ts'

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

const matching = (pattern: RegExp, what: string) => textThat((value) => (pattern.test(value) ? undefined : what))

/** The Host field is taken for what it is elsewhere: the authority. */
const keyField = () => fieldName().refine((name) => name.toLowerCase() !== 'host', 'host counts by itself, unless cache.key.host is false')

const cookieName = () => textThat((name) => (/^[\w!#$%&'*+.^`|~-]+$/.test(name) ? undefined : 'is no name of a cookie'))

const queryKey = () => z.union([z.enum(['all', 'sorted', 'none']), z.strictObject({ only: z.array(text()).min(1) }), z.strictObject({ except: z.array(text()).min(1) })])

const bypassSchema = z
  .strictObject({
    /** The request has this field, this cookie, this parameter. */
    header: keyField().optional(),
    cookie: text().optional(),
    query: text().optional(),
    /** What it says. Default: anything. */
    value: z.string().optional(),
    path: pathPrefix().optional()
  })
  .superRefine((rule, context) => {
    const named = [rule.header, rule.cookie, rule.query].filter((name) => name !== undefined).length
    if (named === 0 && rule.path === undefined) context.addIssue({ code: 'custom', message: 'names none of header, cookie, query and path: it would be for every request' })
    else if (rule.value !== undefined && named !== 1) context.addIssue({ code: 'custom', path: ['value'], message: 'belongs to exactly one of header, cookie and query' })
  })

/** What is kept, for how long, and for whom. A route may have some of it otherwise. */
const policySchema = z.strictObject({
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
      textThat((key) =>
        key === 'connectError' || (isStatus(key) && key[0] !== '1' && !['204', '205', '206', '304'].includes(key))
          ? undefined
          : '"connectError", a status such as 404 or a class such as "5xx" is wanted'
      ),
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
  targetedFields: z.array(fieldName()).prefault(['proxy-cache-control', 'cdn-cache-control']),
  /** Larger answers are passed on and not kept. */
  maxObjectSize: size().prefault('64MiB'),
  /** What tells one stored answer from another, beside the path. */
  key: z
    .strictObject({
      /** `false`: all hosts share what is stored. */
      host: z.boolean().default(true),
      /** Parameters that count; the origin is sent all of them. */
      query: queryKey().default('all'),
      headers: z.array(keyField()).prefault([]),
      cookies: z.array(cookieName()).prefault([]),
      /** What the origin has to choose from: what of the list a client takes counts, and is all that the origin is told. */
      encodings: z
        .array(matching(/^[\w!#$%&'+.^`|~-]+$/, 'is a content coding, such as "br"'))
        .min(1)
        .optional(),
      types: z
        .array(matching(/^[\w!#$&^.+-]+\/[\w!#$&^.+-]+$/, 'is a media type, such as "image/webp"'))
        .min(1)
        .optional(),
      languages: z
        .array(matching(/^[a-zA-Z]{1,8}(?:-[a-zA-Z0-9]{1,8})*$/, 'is a language tag, such as "en" or "pt-BR"'))
        .min(1)
        .optional()
    })
    .prefault({}),
  /** Requests that go by the cache: one rule that fits is enough. */
  bypass: z.array(bypassSchema).prefault([]),
  /** `ignore`: Cache-Control and Expires of answers do not count. */
  originDirectives: z.enum(['honour', 'ignore']).default('honour'),
  /** `ignore`: no client can have the origin asked. */
  requestDirectives: z.enum(['honour', 'ignore']).default('honour'),
  /** Bounds of lifetimes that no rule has set. */
  minTtl: lifetime().prefault('0s'),
  maxTtl: lifetime().optional(),
  /** Content of other types is passed on and not kept. */
  contentTypes: z.array(mediaRange()).min(1).optional(),
  /** `store`: answers with Set-Cookie are kept and given to everybody. */
  setCookie: z.enum(['refuse', 'store']).default('refuse'),
  /** `fill`: a request for a part of what is not stored has the whole fetched besides. */
  rangeMiss: z.enum(['pass', 'fill']).default('pass'),
  /** Variants of one URL that are kept. */
  maxVariants: count(1, 10_000).default(64)
})

export const cacheSchema = policySchema.extend({
  /** Nearest first. Default: memory, then what `stores` configures of disk, redis and s3. */
  tiers: z.array(tierSchema).min(1).optional()
})

export type CachePolicy = z.output<typeof policySchema>

/** What a route has otherwise: within `stale`, `negative` and `key`, what it does not name stays. */
export type CacheOverrides = Partial<Omit<CachePolicy, Nested>> & { readonly [K in Nested]?: Partial<CachePolicy[K]> }
type Nested = 'stale' | 'negative' | 'key'

export const cacheOverridesSchema = overriding(policySchema) as z.ZodType<CacheOverrides>

/** The same keys, none of which needs to be there, without defaults. */
function overriding(schema: z.ZodType): z.ZodType {
  if (schema instanceof z.ZodPrefault || schema instanceof z.ZodDefault || schema instanceof z.ZodOptional) return overriding(schema.unwrap() as z.ZodType)
  if (!(schema instanceof z.ZodObject)) return schema
  return z.strictObject(Object.fromEntries(Object.entries(schema.shape).map(([key, each]) => [key, overriding(each as z.ZodType).optional()])))
}

/** The policy of a route. */
export function policyOf(cache: CachePolicy, overrides: CacheOverrides): CachePolicy {
  const joined = { ...cache, ...overrides } as CachePolicy
  return { ...joined, stale: { ...cache.stale, ...overrides.stale }, negative: { ...cache.negative, ...overrides.negative } as CachePolicy['negative'], key: { ...cache.key, ...overrides.key } }
}

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
