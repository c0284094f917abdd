import { randomBytes, randomInt } from 'node:crypto'
import { rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { readAll } from '@proxy/pipeline'
import { expect, test } from 'vitest'
import { startWorker } from './child-process.ts'
import { isTelling } from './self-telling.ts'
import { bodyOf, filesIn, folder, MIB, meta, openStore, put } from './support.ts'

const KEYS = 60

test('killed at any point of its writes: what a fresh process finds is whole, and nothing is left over', { timeout: 240_000 }, async () => {
  const directory = await folder()
  let found = 0
  let leftOver = 0
  for (let round = 0; round < 12; round++) {
    const worker = startWorker('./child-mixed.ts', [directory, String(16 * MIB), '0', String(KEYS), '700000'])
    expect(await worker.line()).toBe('ready')
    await delay(randomInt(30, 400))
    await worker.kill()
    leftOver += (await filesIn(directory, 'tmp')).length

    const store = await openStore(directory, { maxBytes: 16 * MIB })
    expect(await filesIn(directory, 'tmp'), 'what the dead process began is swept').toEqual([])
    for (let i = 0; i < KEYS; i++) {
      const key = `key ${i}`
      const entry = await store.get(key)
      if (entry === undefined) continue
      // Nothing that was renamed may turn out broken: killing a process loses no page that it had written.
      expect(isTelling(key, await readAll(await entry.open(), 16 * MIB))).toBe(true)
      found++
    }
    expect(store.stats().broken).toBe(0)
    expect(store.stats().entries).toBe((await filesIn(directory, 'v1')).length)
    await store.close()
  }
  expect(found).toBeGreaterThan(100)
  expect(leftOver, 'it was caught in the middle of writes').toBeGreaterThan(0)
})

test('temporary files of a store that is alive stay, those of one that is gone go, others are not ours', async () => {
  const directory = await folder()
  const first = await openStore(directory)
  const writer = first.put('key', meta())
  const body = randomBytes(2 * MIB)
  if (!writer.write(body)) await writer.drained()
  const owners = (await filesIn(directory, 'tmp')).map((path) => path.split('/').at(-1) as string)
  expect(owners.length).toBe(1)
  const [host] = (owners[0] as string).split('.')
  const dead = join(directory, 'tmp', `${host}.${2 ** 22 + 1}.0.0123456789ab.3`)
  const elsewhere = join(directory, 'tmp', '01234567.1.0.0123456789ab.3')
  const elsewhereOld = join(directory, 'tmp', '01234567.1.0.0123456789ab.4')
  const strange = join(directory, 'tmp', 'notes.txt')
  for (const path of [dead, elsewhere, elsewhereOld, strange]) await writeFile(path, 'x')
  const longAgo = Date.now() / 1000 - 2 * 60 * 60
  await utimes(elsewhereOld, longAgo, longAgo)
  const second = await openStore(directory)
  const exists = (path: string): Promise<boolean> =>
    stat(path).then(
      () => true,
      () => false
    )
  expect([await exists(dead), await exists(elsewhere), await exists(elsewhereOld), await exists(strange)]).toEqual([false, true, false, true])
  expect(await writer.commit()).toBe(true)
  expect(await bodyOf(second, 'key')).toEqual(body)
})

test.each(['index', 'v1', 'tmp'])('without its folder %s, or with garbage in it, the store starts and works', async (part) => {
  const directory = await folder()
  const first = await openStore(directory)
  for (let i = 0; i < 50; i++) await put(first, `key ${i}`, randomBytes(5000))
  await first.close()
  await rm(join(directory, part), { recursive: true })
  const second = await openStore(directory)
  expect(second.stats().entries).toBe(part === 'v1' ? 0 : 50)
  expect((await bodyOf(second, 'key 7'))?.length).toBe(part === 'v1' ? undefined : 5000)
  expect(await put(second, 'new', randomBytes(10))).toBe(true)
  await second.close()
  for (const path of await filesIn(directory, 'index')) await writeFile(path, randomBytes(3000))
  const third = await openStore(directory)
  expect(third.stats().entries).toBe(part === 'v1' ? 1 : 51)
  expect((await bodyOf(third, 'new'))?.length).toBe(10)
})
