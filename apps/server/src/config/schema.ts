import { z } from 'zod'
import { count, fieldName, fields, fieldValue, httpUrl, listenHost, matchHost, pathPrefix, routeFields, size, text, textThat, timeout, writableFieldName } from './scalars.ts'
import { authSchema, rateLimitSchema } from './schema-access.ts'
import { cacheOverridesSchema, cacheSchema, storesSchema, type TierSettings } from './schema-cache.ts'
import { poolSchema } from './schema-pool.ts'

const listenerSchema = z.strictObject({
  host: listenHost().default('127.0.0.1'),
  /** 0: a free one. */
  port: count(0, 65_535).default(8080),
  /** PEM files, the certificate with its chain. */
  tls: z.strictObject({ cert: text(), key: text() }).optional(),
  maxConnections: count(1).default(10_000),
  maxHeaderSize: size(1024).prefault('16KiB'),
  timeouts: z
    .strictObject({
      /** Until the header of a request is complete. */
      headers: timeout().prefault('10s'),
      /** Until a request is complete, its body too. */
      request: timeout().prefault('5m'),
      /** Between two requests of one connection. */
      keepAlive: timeout().prefault('60s')
    })
    .prefault({})
})

const methodName = () => textThat((value) => (/^[A-Z-]+$/.test(value) ? undefined : 'is no method: upper-case letters, such as "GET"'))

export const routeSchema = z.strictObject({
  match: z
    .strictObject({
      host: matchHost().optional(),
      path: pathPrefix().default('/')
    })
    .prefault({}),
  pool: text(),
  /** Others are answered 405. Default: all. */
  methods: z.array(methodName()).min(1).optional(),
  /** `false`: nothing is kept. A mapping: what this route has otherwise than the section `cache`. */
  cache: z.union([z.boolean(), cacheOverridesSchema]).default(true),
  /** Default: true where `auth` is configured. */
  auth: z.boolean().optional(),
  /** Default: true where `rateLimit` is configured. */
  rateLimit: z.boolean().optional(),
  /** Neither forwarded nor part of the cache key. */
  dropQuery: z.boolean().default(false),
  requestHeaders: z.strictObject({ set: routeFields().prefault({}), remove: z.array(fieldName()).prefault([]) }).prefault({}),
  responseHeaders: z
    .strictObject({
      /** On answers below 400. */
      set: fields().prefault({}),
      /** On every answer of the pool and the cache. */
      always: fields().prefault({}),
      remove: z.array(fieldName()).prefault([])
    })
    .prefault({})
})

const adminSchema = z.strictObject({
  prefix: textThat((value) =>
    /^(?:\/[\w.~-]+)+$/.test(value) && !/\/\.{1,2}(?:\/|$)/.test(value) ? undefined : 'is a path such as "/_proxy": letters, digits, "_", "-", "." and "~", with no "/" at the end'
  ).default('/_proxy'),
  key: fieldValue().optional(),
  /** Who is let in without the key. Addresses or CIDR blocks; `loopback` is this machine. */
  allow: z.array(text()).prefault(['loopback'])
})

const observabilitySchema = z.strictObject({
  accessLog: z.boolean().default(true),
  logLevel: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
  metrics: z.boolean().default(true),
  /** A response field that tells at length why the cache answered as it did. Default: none. */
  cacheDebugHeader: writableFieldName().optional(),
  /** A response field that says HIT, MISS and so on. Default: none. */
  cacheStatusHeader: writableFieldName().optional()
})

export const configSchema = z.strictObject({
  listeners: z.array(listenerSchema).min(1).prefault([{}]),
  trustedProxies: z.array(text()).prefault([]),
  admin: adminSchema.prefault({}),
  /** Default: everything to the only pool. */
  routes: z.array(routeSchema).min(1).optional(),
  pools: z.record(
    textThat((name) => (/^[\w.-]+$/.test(name) ? undefined : 'a pool has a name of letters, digits, "_", "-" and "."')),
    poolSchema
  ),
  cache: cacheSchema.prefault({}),
  stores: storesSchema.prefault({}),
  auth: authSchema.optional(),
  rateLimit: rateLimitSchema.optional(),
  observability: observabilitySchema.prefault({}),
  /** What is fetched into the cache once the server listens. */
  preload: z
    .strictObject({
      /** Whole, as clients ask for them. */
      urls: z.array(httpUrl()).prefault([]),
      concurrency: count(1, 1000).default(4)
    })
    .prefault({}),
  /** How long requests under way may take to end once the server was told to. */
  shutdownGrace: timeout().prefault('30s')
})

/** The configuration as it is written: durations and sizes are text, what has a default may be left out. */
export type Config = z.input<typeof configSchema>
/** The configuration with every default filled in; durations are milliseconds, sizes bytes. */
export type Settings = z.output<typeof configSchema> & { readonly routes: readonly RouteSettings[]; readonly cache: { readonly tiers: readonly TierSettings[] } }
export type RouteSettings = z.output<typeof routeSchema>
export type ListenerSettings = z.output<typeof listenerSchema>
