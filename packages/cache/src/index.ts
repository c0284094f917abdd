export { MemoryStore, type MemoryStoreOptions, type MemoryStoreStats } from './memory-store.ts'
export type { CacheEntry, CacheMeta, CacheStore, CacheWriter, GetOptions, StoredMeta, VaryIndex } from './store.ts'
