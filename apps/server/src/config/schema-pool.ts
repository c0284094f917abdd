import { z } from 'zod'
import { count, fieldName, origin, targetFields, text, timeout } from './scalars.ts'

const targetSchema = z
  .union([origin(), z.strictObject({ url: origin(), weight: z.number().positive().max(1_000_000).default(1), name: text().optional() })])
  .transform((target) => (typeof target === 'string' ? { url: target, weight: 1, name: undefined } : target))

export const poolSchema = z.strictObject({
  targets: z.array(targetSchema).min(1),
  strategy: z.enum(['round-robin', 'random', 'least-connections']).default('round-robin'),
  /** Other targets that are tried where one could not be reached. */
  retries: count(0, 100).default(1),
  timeouts: z
    .strictObject({
      connect: timeout().prefault('5s'),
      /** From the request to the header of the answer. */
      headers: timeout().prefault('30s'),
      /** Between two parts of a body. */
      body: timeout().prefault('30s')
    })
    .prefault({}),
  /** Per target. */
  connections: count(1, 100_000).default(256),
  /** How long an unused connection is kept: less than the target does, or it may close one that is being used again. */
  keepAlive: timeout().prefault('4s'),
  /** Whether the fields that the client sent go on to the target. */
  forwardClientHeaders: z.boolean().default(true),
  /** Whether X-Forwarded-For, -Host and -Proto are sent. */
  xForwarded: z.boolean().default(true),
  requestHeaders: z.strictObject({ set: targetFields().prefault({}), remove: z.array(fieldName()).prefault([]) }).prefault({}),
  /** When failing targets are left out. */
  passiveHealth: z.union([z.literal(false), z.strictObject({ maxFails: count(1, 1000).default(3), failTimeout: timeout().prefault('10s') })]).prefault({}),
  tls: z
    .strictObject({
      verify: z.boolean().default(true),
      /** PEM file with the authorities to trust instead of the system's. */
      ca: text().optional(),
      serverName: text().optional()
    })
    .prefault({})
})

export type PoolSettings = z.output<typeof poolSchema>
