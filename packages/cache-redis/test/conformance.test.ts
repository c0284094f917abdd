import { storeConformance } from '@proxy/cache/conformance'
import { sharedRedisUrl } from '@proxy/testing'
import { afterAll, beforeAll, describe, test } from 'vitest'
import { connectRedis, type RedisConnection } from '../src/connect.ts'
import { RedisStore } from '../src/redis-store.ts'
import { freshPrefix, patient, patientConnection } from './support.ts'

let connection: RedisConnection
beforeAll(async () => {
  connection = connectRedis(await sharedRedisUrl(), patientConnection)
  await connection.ready(20_000)
})
afterAll(() => connection.close())

describe('RedisStore conformance', () => {
  const maxEntryBytes = 2 << 20
  storeConformance({ test, create: () => new RedisStore({ ...patient, redis: connection.client, prefix: freshPrefix(), maxEntryBytes }), tooLargeBytes: maxEntryBytes + 1 })
})
