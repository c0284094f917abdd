import { randomBytes } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { expect, test, vi } from 'vitest'
import { startWorker } from './child-process.ts'
import { isTelling } from './self-telling.ts'
import { bodyOf, filesIn, folder, MIB, meta, openStore, put } from './support.ts'

async function bytesIn(directory: string): Promise<number> {
  let bytes = 0
  for (const part of ['v1', 'tmp', 'index']) {
    for (const path of await filesIn(directory, part)) {
      const stats = await stat(path).catch(() => undefined)
      bytes += Math.ceil((stats?.size ?? 0) / 4096) * 4096
    }
  }
  return bytes
}

test('two processes, 10000 mixed requests: no wrong body, and the size is kept within a tenth', { timeout: 240_000 }, async () => {
  const directory = await folder()
  const maxBytes = 40 * MIB
  const args = [directory, String(maxBytes), '5000', '2000', '200000']
  const workers = [startWorker('./child-mixed.ts', args), startWorker('./child-mixed.ts', args)]
  let largest = 0
  let running = true
  const ended = Promise.all(workers.map((worker) => worker.ended())).finally(() => {
    running = false
  })
  while (running) {
    largest = Math.max(largest, await bytesIn(directory))
    await delay(10)
  }
  expect(await ended).toEqual([0, 0])
  let stored = 0
  for (const { lines } of workers) {
    const told = JSON.parse(lines.at(-1) as string)
    expect(told).toMatchObject({ wrong: 0, brokenOff: 0, failed: 0 })
    expect(told.hits).toBeGreaterThan(100)
    expect(told.touched).toBeGreaterThan(10)
    stored += told.stored
  }
  // Twice the limit and more was written, so that it was reached.
  expect(stored * 100_000).toBeGreaterThan(2 * maxBytes)
  expect(largest).toBeGreaterThan(0.7 * maxBytes)
  expect(largest / maxBytes).toBeLessThanOrEqual(1.1)

  const store = await openStore(directory, { maxBytes })
  expect(store.stats().entries).toBe((await filesIn(directory, 'v1')).length)
  for (let i = 0; i < 2000; i++) {
    const body = await bodyOf(store, `key ${i}`)
    if (body !== undefined) expect(isTelling(`key ${i}`, body)).toBe(true)
  }
  expect(store.stats().broken).toBe(0)
})

test('each learns what the other stores, overwrites and removes', async () => {
  const directory = await folder()
  const one = await openStore(directory)
  const two = await openStore(directory)
  for (let i = 0; i < 20; i++) await put(one, `key ${i}`, randomBytes(10_000))
  await vi.waitUntil(() => two.stats().entries === 20, { timeout: 20_000 })
  expect(two.stats().bytes).toBe(one.stats().bytes)
  const body = randomBytes(50_000)
  await put(two, 'key 3', body)
  expect(await bodyOf(one, 'key 3')).toEqual(body)
  for (let i = 10; i < 20; i++) expect(await two.delete(`key ${i}`)).toBe(true)
  await vi.waitUntil(() => one.stats().entries === 10 && one.stats().bytes === two.stats().bytes, { timeout: 20_000 })
})

// Numbers of processes were compared where only the name of the host was the same: each of two containers took the other's files for those of a dead process.
test('processes that cannot see each other leave each other their files', async () => {
  const directory = await folder()
  const store = await openStore(directory)
  const writer = store.put('key', meta())
  const body = randomBytes(2 * MIB)
  if (!writer.write(body)) await writer.drained()
  expect(await put(store, 'other', randomBytes(1000))).toBe(true)
  const mine = async (): Promise<string[]> => [...(await filesIn(directory, 'tmp')), ...(await filesIn(directory, 'index')).filter((path) => path.endsWith('.journal'))]
  await vi.waitUntil(async () => (await mine()).length === 2, { timeout: 20_000 })
  const before = await mine()
  const other = startWorker('./child-survey.ts', [directory], ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc'])
  expect(await other.ended()).toBe(0)
  expect(Number(other.lines.at(-1)), 'it has numbers of its own').toBe(1)
  expect(await mine()).toEqual(expect.arrayContaining(before))
  expect(await writer.commit()).toBe(true)
  expect(await bodyOf(store, 'key')).toEqual(body)
})
