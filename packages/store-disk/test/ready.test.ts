import { randomBytes } from 'node:crypto'
import { readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, onTestFinished, test, vi } from 'vitest'
import { EntryIndex } from '../src/entry-index.ts'
import { DiskStore } from '../src/index.ts'
import { DiskIo } from '../src/io.ts'
import { Places } from '../src/layout.ts'
import { OtherJournals } from '../src/others.ts'
import { Owner } from '../src/owner.ts'
import { readSnapshot } from '../src/snapshot.ts'
import { startWorker } from './child-process.ts'
import { generateIndex, leaveSnapshot } from './generate.ts'
import { bodyOf, filesIn, folder, MIB, openStore, patient, put, surveyed } from './support.ts'

const GIB = 1024 * MIB

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

test('a million entries take tens of megabytes', () => {
  collect()
  const before = process.memoryUsage().arrayBuffers
  const index = generateIndex(1_000_000)
  collect()
  const bytes = process.memoryUsage().arrayBuffers - before
  expect(index.count).toBe(1_000_000)
  expect(bytes).toBeGreaterThan(24 * MIB)
  expect(bytes).toBeLessThan(100 * MIB)
})

test('ready within two seconds with a million entries, 10000 of them real, and in short slices', { timeout: 240_000 }, async () => {
  const directory = await folder()
  const first = await openStore(directory, { maxBytes: 64 * GIB })
  for (let i = 0; i < 10_000; i += 50) await Promise.all(Array.from({ length: 50 }, (_, j) => put(first, `key ${i + j}`, randomBytes(100))))
  await first.close()
  const index = new EntryIndex()
  expect(await readSnapshot(new DiskIo(3, 1024), new Places(directory), index)).toBe(true)
  await leaveSnapshot(directory, generateIndex(990_000, index))
  expect((await stat(join(directory, 'index', 'snapshot'))).size).toBeGreaterThan(23_000_000)

  // The control: a machine that needs long for this is not to be measured by the clock.
  const control = performance.now()
  generateIndex(1_000_000)
  const controlMs = performance.now() - control

  const lag = monitorEventLoopDelay({ resolution: 1 })
  lag.enable()
  const began = performance.now()
  const second = new DiskStore({ ...patient, directory, maxBytes: 64 * GIB })
  onTestFinished(() => second.close())
  await second.prepare()
  const readyMs = performance.now() - began
  lag.disable()
  expect(lag.max / 1e6, 'milliseconds of the longest slice').toBeLessThan(Math.max(250, controlMs))
  expect(second.stats().entries).toBeGreaterThanOrEqual(990_000)
  expect((await bodyOf(second, 'key 9999'))?.length).toBe(100)
  expect(readyMs).toBeLessThan(Math.max(2000, 5 * controlMs))

  // The generated ones have no files: the survey takes them out, while the store serves.
  await surveyed(second)
  expect(second.stats().entries).toBe(10_000)
})

test('without an index it serves at once, and has it again when the directory has been walked', async () => {
  const directory = await folder()
  const first = await openStore(directory)
  for (let i = 0; i < 300; i++) await put(first, `key ${i}`, randomBytes(5000 + i * 30))
  const { entries, bytes } = first.stats()
  await first.close()
  await rm(join(directory, 'index'), { recursive: true })
  const second = new DiskStore({ ...patient, directory, maxBytes: 256 * MIB })
  onTestFinished(() => second.close())
  expect((await bodyOf(second, 'key 200'))?.length).toBe(11_000)
  await surveyed(second)
  expect(second.stats()).toMatchObject({ entries, bytes })
})

test('a damaged shard of the snapshot is found again by walking; whatever a snapshot holds, nothing throws', async () => {
  const directory = await folder()
  const first = await openStore(directory)
  for (let i = 0; i < 200; i++) await put(first, `key ${i}`, randomBytes(100))
  await first.close()
  const path = join(directory, 'index', 'snapshot')
  const good = await readFile(path)
  for (const at of [0, 1, 5, 9, 13, 100, good.length - 10, good.length - 500]) {
    const bad = Buffer.from(good)
    bad[at] = (bad[at] as number) ^ 0x55
    await writeFile(path, bad)
    for (const journal of (await filesIn(directory, 'index')).filter((name) => name.endsWith('.journal'))) await rm(journal)
    const store = await openStore(directory)
    expect(store.stats().entries).toBe(200)
    await store.close()
  }
})

test('the index survives without a clean end: the journal has what came after the snapshot', async () => {
  const directory = await folder()
  const worker = startWorker('./child-mixed.ts', [directory, String(64 * MIB), '0', '300', '5000'])
  expect(await worker.line()).toBe('ready')
  const journalBytes = async (): Promise<number> => {
    const [journal] = await filesIn(directory, 'index')
    return journal === undefined ? 0 : (await stat(journal)).size
  }
  await vi.waitUntil(async () => (await journalBytes()) > 400 * 24, { timeout: 60_000 })
  await worker.kill()
  const index = new EntryIndex()
  const places = new Places(directory)
  const io = new DiskIo(3, 1024)
  const others = new OtherJournals(io, places, new Owner())
  await others.read(({ id, blocks }) => {
    if (blocks === 0) index.remove(id)
    else index.set(id, blocks)
  })
  expect(index.count).toBeGreaterThan(100)
  expect(others.finished.length).toBe(1)
  const store = await openStore(directory)
  expect(store.stats().entries).toBe((await filesIn(directory, 'v1')).length)
  expect((await filesIn(directory, 'index')).map((name) => name.split('/').at(-1))).toEqual(['snapshot'])
})
