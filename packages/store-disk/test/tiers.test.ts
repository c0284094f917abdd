import { MemoryStore, tiered } from '@proxy/cache'
import { sampleMeta } from '@proxy/cache/conformance'
import { readAll } from '@proxy/pipeline'
import { expect, onTestFinished, test, vi } from 'vitest'
import { DiskStore } from '../src/index.ts'
import { folder, MIB, mountTmpfs, patient } from './support.ts'

function behindMemory(directory: string) {
  const disk = new DiskStore({ ...patient, directory, maxBytes: 16 * MIB, breaker: { openMs: 50 } })
  const store = tiered([
    { name: 'memory', store: new MemoryStore({ maxBytes: MIB, maxEntryBytes: 300_000 }) },
    { name: 'disk', store: disk }
  ])
  onTestFinished(() => store.close())
  const put = async (key: string, body: Uint8Array): Promise<boolean> => {
    const writer = store.put(key, sampleMeta())
    if (!writer.write(body)) await writer.drained()
    return writer.commit()
  }
  const read = async (key: string): Promise<number | undefined> => {
    const entry = await store.get(key)
    return entry && (await readAll(await entry.open(), MIB)).byteLength
  }
  return { disk, store, put, read }
}

test('each tier tells what it holds, serves and has evicted', async () => {
  const { store, put, read } = behindMemory(await folder())
  for (let i = 0; i < 10; i++) expect(await put(`k${i}`, Buffer.alloc(200_000))).toBe(true)
  expect(await put('large', Buffer.alloc(500_000))).toBe(true)
  for (let i = 0; i < 10; i++) expect(await read(`k${i}`)).toBe(200_000)
  expect(await (await store.get('large'))?.open({ start: 10, end: 99 })).toMatchObject({ length: 90 })
  const [memory, disk] = store.tierStats()
  expect(memory).toMatchObject({ writesGivenUp: 1 })
  expect(memory?.evictions).toBeGreaterThan(0)
  expect(memory?.bytes).toBeLessThanOrEqual(MIB)
  expect(memory?.entries).toBeLessThanOrEqual(5)
  expect(disk).toMatchObject({ entries: 11, evictions: 0, bytesWritten: 2_500_000, writesGivenUp: 0, readBreaker: 'closed', writeBreaker: 'closed', errors: 0 })
  expect(disk?.bytes).toBeGreaterThan(2_500_000)
  expect((memory?.bytesServed ?? 0) + (disk?.bytesServed ?? 0)).toBe(2_000_090)
  expect(disk?.bytesServed).toBe((disk?.hits ?? 0) * 200_000 - 200_000 + 90)
})

// It went on being read, and what had been removed with it.
test('a disk that became read-only is not asked for what should be gone, and forgets it when it can', async () => {
  const mounted = await mountTmpfs(16 * MIB)
  const { disk, store, put, read } = behindMemory(mounted.path)
  for (const key of ['a', 'b', 'c']) await put(key, Buffer.alloc(1000))
  await mounted.readOnly()
  for (const key of ['a', 'b']) await expect(store.delete(key)).rejects.toMatchObject({ source: 'proxy' })
  expect([await read('a'), await read('b'), await read('c')]).toEqual([undefined, undefined, 1000])
  expect((await disk.get('a'))?.meta.length).toBe(1000)
  await mounted.writable()
  await vi.waitUntil(
    async () => {
      await read('nothing')
      // A lookup in the store itself sees what is there.
      const entry = await disk.get('a')
      entry?.discard()
      return entry === undefined && store.tierStats()[1]?.missedRemovals === 0
    },
    { timeout: 20_000, interval: 20 }
  )
  expect(await put('a', Buffer.alloc(2000))).toBe(true)
  expect(await read('a')).toBe(2000)
})
