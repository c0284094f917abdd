export { type ConnectRedisOptions, connectRedis, type RedisConnection } from './connect.ts'
export type { RedisErrorCode } from './errors.ts'
export type { RedisStoreOptions, RedisStoreStats } from './options.ts'
export { RedisStore } from './redis-store.ts'
