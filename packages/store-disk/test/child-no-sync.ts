import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { readAll } from '@proxy/pipeline'
import { DiskPurgeLog, DiskStore } from '../src/index.ts'
import { tellingBody, tellingMeta } from './self-telling.ts'

/** Does everything a store can do while every synchronous function of node:fs throws. Prints "done" with what it did. Argument: directory. */
const [directory = ''] = process.argv.slice(2)
let calls = 0
for (const name of Object.keys(fs)) {
  if (!name.endsWith('Sync')) continue
  Object.defineProperty(fs, name, {
    value: () => {
      calls++
      throw new Error(`${name} was called`)
    }
  })
}
syncBuiltinESMExports()

const told: unknown[] = []
for (let round = 0; round < 2; round++) {
  const store = new DiskStore({ directory, maxBytes: 2 * 1024 * 1024, maxEntryBytes: 1024 * 1024, fsync: true })
  await store.prepare()
  for (let i = 0; i < 30; i++) {
    const key = `key ${i}`
    const writer = store.put(key, tellingMeta(key))
    writer.write(tellingBody(key, i, i % 10 === 0 ? 600_000 : 60_000))
    await writer.commit()
    const entry = await store.get(key, { body: 'none' })
    if (entry === undefined) continue
    await store.touch(key, entry.version, tellingMeta(key, { status: 203 }))
    await readAll(await entry.open(), 1e7)
  }
  await store.delete('key 28')
  await store.sweep(({ status }) => status === 203, true)
  const log = new DiskPurgeLog({ directory, store, maxRecords: 4, pollMs: 5 })
  await log.prepare()
  for (let i = 0; i < 20; i++) await log.add({ scope: 'tag', value: `${round} ${i}`, at: i, soft: false })
  await log.close()
  // Room is made in the background.
  for (let turn = 0; turn < 1000 && store.stats().evictions <= 5; turn++) await new Promise((resolve) => setTimeout(resolve, 5))
  told.push(store.stats().hits > 25, store.stats().evictions > 5)
  await store.close()
}
console.log(`done ${calls} ${told.join(' ')}`)
