import assert from 'node:assert/strict'
import { bodyCases } from './conformance-bodies.ts'
import { entryCases } from './conformance-entries.ts'
import { bodyOf, freshKey, mustGet, sampleBytes, sampleMeta, write } from './conformance-tools.ts'
import type { CacheMeta, CacheStore } from './store.ts'

export { type OpenPurgeLog, type PurgeLogConformanceOptions, purgeLogConformance } from './conformance-purge-logs.ts'
export { sampleBytes, sampleMeta } from './conformance-tools.ts'

export interface StoreConformanceOptions {
  /** Registers one case: vitest's or node:test's `test`. */
  readonly test: (name: string, body: () => Promise<void>) => void
  /** A store that is empty, or whose keys nobody else uses. Called once per case; the suite closes it. */
  readonly create: () => CacheStore | Promise<CacheStore>
  /** A body size that the store made by `create` refuses, where it has such a limit. Bytes. */
  readonly tooLargeBytes?: number
  /** Resolves when what was committed can be read: for stores whose `commit` resolves before. Default: at once. */
  readonly settled?: (store: CacheStore) => Promise<void>
}

/** The cases every `CacheStore` passes. Registers them with `options.test`. */
export function storeConformance(options: StoreConformanceOptions): void {
  const settled = options.settled ?? (async () => {})
  const check = (name: string, run: (store: CacheStore) => Promise<void>): void => {
    options.test(name, async () => {
      const store = await options.create()
      try {
        await run(store)
      } finally {
        await store.close()
      }
    })
  }
  const put = async (store: CacheStore, key: string, bytes: Buffer, meta?: CacheMeta, chunkBytes?: number): Promise<void> => {
    assert.equal(await write(store, key, bytes, meta, chunkBytes), true, 'commit resolves to true')
    await settled(store)
  }

  const cases = { check, put, settled }
  entryCases(cases)
  bodyCases(cases)

  const { tooLargeBytes } = options
  if (tooLargeBytes !== undefined) {
    check('a body beyond the limit is refused, and the store goes on', async (store) => {
      for (const meta of [sampleMeta(), sampleMeta({ length: tooLargeBytes })]) {
        const key = freshKey()
        assert.equal(await write(store, key, Buffer.alloc(tooLargeBytes, 1), meta), false)
        assert.equal(await store.get(key), undefined)
      }
      const key = freshKey()
      await put(store, key, Buffer.from('small'))
      assert.equal((await bodyOf(store, key)).toString(), 'small')
    })
  }

  check('close can be called with nothing under way', async (store) => {
    await put(store, freshKey(), Buffer.from('x'))
  })

  check('close can be called with a write and a read under way', async (store) => {
    const key = freshKey()
    await put(store, key, sampleBytes(300_000))
    await (await mustGet(store, key)).open()
    store.put(freshKey(), sampleMeta()).write(Buffer.from('x'))
  })
}
