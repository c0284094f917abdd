import { z } from 'zod'
import { count, fieldName, text, timeout } from './scalars.ts'

/** Secrets, each alone or with the name of its owner. A list, so that no path of a key holds one. */
const secrets = () => z.array(z.union([text(), z.strictObject({ secret: text(), name: text() })])).min(1)

export const authSchema = z
  .strictObject({
    realm: text().default('proxy'),
    bearer: z.strictObject({ tokens: secrets() }).optional(),
    /** `users`: name -> password. `rawTokens`: what some clients send in place of base64. */
    basic: z.strictObject({ users: z.record(z.string(), text()).optional(), rawTokens: secrets().optional() }).optional(),
    apiKey: z.strictObject({ keys: secrets(), header: fieldName().prefault('x-api-key') }).optional()
  })
  .refine(({ bearer, basic, apiKey }) => bearer !== undefined || basic !== undefined || apiKey !== undefined, 'needs bearer, basic or apiKey: nobody could be let in')

const sharedSettings = {
  /** Whom a limit is for: an address (before `auth`), an authenticated client (after it), or the value of a field (before it). */
  key: z.union([z.enum(['client-address', 'principal']), z.strictObject({ header: fieldName() })]).prefault('client-address'),
  store: z.enum(['memory', 'redis']).default('memory'),
  /** Fields that tell clients about their limit. */
  headers: z.enum(['draft', 'x', 'none']).default('draft'),
  /** Clients that are remembered. */
  maxKeys: count(1, 100_000_000).default(100_000),
  /** What decides while Redis does not. */
  onError: z.enum(['memory', 'allow', 'deny']).default('memory')
}

const positive = () => z.number().positive().max(1e12)

export const rateLimitSchema = z.discriminatedUnion('algorithm', [
  z.strictObject({ algorithm: z.literal('token-bucket'), rate: positive(), per: timeout().prefault('1s'), burst: z.number().min(1).max(1e12), ...sharedSettings }),
  z.strictObject({ algorithm: z.literal('sliding-window'), limit: z.number().min(1).max(1e12), window: timeout(), ...sharedSettings })
])

export type AuthSettings = z.output<typeof authSchema>
export type RateLimitSettings = z.output<typeof rateLimitSchema>
