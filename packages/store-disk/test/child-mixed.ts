import { randomInt } from 'node:crypto'
import { readAll } from '@proxy/pipeline'
import { DiskStore } from '../src/index.ts'
import { isTelling, tellingBody, tellingMeta } from './self-telling.ts'

/**
 * Arguments: directory, maxBytes, operations (0: until it is killed), keys, largest body. Prints "ready", then every hundred operations the bytes in the index,
 * and at last what it did as JSON. Operations are done four at a time.
 */
const [directory = '', maxBytes, operations, keys, largest] = process.argv.slice(2)
const store = new DiskStore({ directory, maxBytes: Number(maxBytes), readTimeoutMs: 20_000, writeTimeoutMs: 20_000 })
await store.prepare()
console.log('ready')
const told = { hits: 0, misses: 0, wrong: 0, stored: 0, failed: 0, touched: 0, deleted: 0, brokenOff: 0 }
let done = 0

async function write(key: string): Promise<void> {
  const body = tellingBody(key, randomInt(2 ** 32), randomInt(Number(largest)))
  const writer = store.put(key, tellingMeta(key))
  for (let at = 0; at < body.length; at += 30_000) if (!writer.write(body.subarray(at, at + 30_000))) await writer.drained()
  if (await writer.commit()) told.stored++
  else told.failed++
}

async function read(key: string): Promise<void> {
  const entry = await store.get(key)
  if (entry === undefined) {
    told.misses++
    return
  }
  let body: Buffer
  try {
    body = await readAll(await entry.open(), 1e9)
  } catch {
    told.brokenOff++
    return
  }
  if (entry.meta.url === key && isTelling(key, body)) told.hits++
  else told.wrong++
}

async function one(): Promise<void> {
  const key = `key ${randomInt(Number(keys))}`
  const dice = randomInt(100)
  if (dice < 50) return read(key)
  if (dice < 85) return write(key)
  const entry = await store.get(key, { body: 'none' })
  entry?.discard()
  if (entry === undefined) return
  if (dice < 95) {
    if (await store.touch(key, entry.version, tellingMeta(key, { status: 203 }))) told.touched++
  } else if (await store.delete(key, dice < 98 ? entry.version : undefined)) told.deleted++
}

async function lane(): Promise<void> {
  while (operations === '0' || done < Number(operations)) {
    done++
    if (done % 100 === 0) console.log(store.stats().bytes)
    await one()
  }
}

await Promise.all([lane(), lane(), lane(), lane()])
await store.close()
console.log(JSON.stringify(told))
