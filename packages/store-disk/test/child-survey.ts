import { setTimeout as delay } from 'node:timers/promises'
import { DiskStore } from '../src/index.ts'

/** Opens a store, which compares the directory and removes what dead ones left, and closes it. Prints its number as a process. Argument: directory. */
const [directory = ''] = process.argv.slice(2)
const store = new DiskStore({ directory, maxBytes: 64 * 1024 * 1024, readTimeoutMs: 20_000, writeTimeoutMs: 20_000 })
await store.prepare()
while (store.stats().surveying) await delay(5)
await store.close()
console.log(process.pid)
