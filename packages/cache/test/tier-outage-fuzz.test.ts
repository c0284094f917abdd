import { readAll } from '@proxy/pipeline'
import { createFakeClock } from '@proxy/testing'
import { expect, test } from 'vitest'
import { sampleMeta } from '../src/conformance.ts'
import { MemoryStore, tiered } from '../src/index.ts'
import { type Operation, OutageStore } from './outage-store.ts'
import { randomFrom, settle, until } from './support.ts'

const OPERATIONS = 600
const KEYS = 8

interface Options {
  readonly seed: number
  /** Where it is little, only removals are sure to hold. */
  readonly maxMissedBytes: number
  /** Whether outages are told to the tiers by errors alone, or by operations that hang as well. */
  readonly hangs: boolean
}

/**
 * Three tiers of which two are away now and then, asked by one client after the other. What is found under a key is never older than the last removal, whatever it
 * met, nor older than the last response that was stored.
 */
async function run({ seed, maxMissedBytes, hangs }: Options): Promise<void> {
  const random = randomFrom(seed)
  const pick = (count: number): number => Math.floor(random() * count)
  const clock = createFakeClock()
  const shaky = [new OutageStore(), new OutageStore(new MemoryStore({ maxBytes: 30_000, maxEntryBytes: 30_000 }))]
  const steady = new MemoryStore({ maxBytes: 6000, maxEntryBytes: 6000 })
  const [first, last] = shaky as [OutageStore, OutageStore]
  const store = tiered(
    [
      { name: 'first', store: first, timeoutMs: 2, commitTimeoutMs: 2, admit: ({ status }) => status === 404 || seed % 2 === 0, breaker: { failureThreshold: 2 } },
      { name: 'steady', store: steady },
      { name: 'last', store: last, timeoutMs: 2, commitTimeoutMs: 2, breaker: { failureThreshold: 2 } }
    ],
    { clock, maxMissedBytes }
  )
  const operations: readonly Operation[] = hangs ? ['get', 'touch', 'delete'] : ['get', 'touch', 'delete', 'commit']
  const chooseFate = (target: OutageStore): void => {
    const away = operations.filter(() => random() < 0.7)
    const rate = random()
    target.fate = (operation) => (away.includes(operation) && random() < rate ? (hangs && random() < 0.3 ? 'hangs' : 'fails') : 'done')
  }

  let version = 0
  /** Per key: versions from this on may be found. */
  const atLeast = Array.from({ length: KEYS }, () => 0)
  const put = async (key: number): Promise<void> => {
    const mine = ++version
    const status = random() < 0.3 ? 404 : 200
    const writer = store.put(`k${key}`, sampleMeta({ status, requestTime: clock.wallMs(), responseTime: clock.wallMs(), keepUntil: clock.wallMs() + 1e9, headers: { version: String(mine) } }))
    writer.write(Buffer.alloc(pick(2000), 'x'))
    if ((await writer.commit()) && maxMissedBytes > 1000) atLeast[key] = mine
  }
  const remove = async (key: number): Promise<void> => {
    const entry = random() < 0.3 ? await store.get(`k${key}`) : undefined
    entry?.discard()
    try {
      await store.delete(`k${key}`, entry?.version)
    } catch {
      // A tier was away.
    }
    if (entry === undefined) atLeast[key] = version + 1
  }
  const look = async (key: number): Promise<void> => {
    const entry = await store.get(`k${key}`)
    if (entry === undefined) return
    const found = Number(entry.meta.headers.version)
    const body = await readAll(await entry.open(), 1 << 20)
    expect(body.byteLength).toBe(entry.meta.length)
    const isAllowed = found >= (atLeast[key] as number)
    if (!isAllowed) throw new Error(`seed ${seed}: version ${found} of k${key}, when ${atLeast[key]} was the least`)
  }

  for (let i = 0; i < OPERATIONS; i++) {
    clock.advance(1 + pick(400))
    if (random() < 0.05) for (const target of shaky) chooseFate(target)
    if (random() < 0.05) for (const target of shaky) target.fate = () => 'done'
    if (random() < 0.1) for (const target of shaky) target.letGo()
    const key = pick(KEYS)
    const kind = random()
    if (kind < 0.4) await look(key)
    else if (kind < 0.8) await put(key)
    else await remove(key)
    if (random() < 0.2) await settle(2)
  }

  for (const target of shaky) {
    target.fate = () => 'done'
    target.letGo()
  }
  for (let round = 0; round < 4; round++) {
    clock.advance(2000)
    for (let key = 0; key < KEYS; key++) await look(key)
    // The nearer tiers may have all the others.
    await store.get('none')
    await settle()
  }
  // All is as if nothing had been.
  for (const tier of store.tierStats()) expect(tier).toMatchObject({ readBreaker: 'closed' })
  await put(0)
  await until(() => store.tierStats().every(({ bufferedBytes }) => bufferedBytes === 0))
  await look(0)
  await store.close()
}

const seeds = Array.from({ length: 60 }, (_, seed) => seed)

// Without anything remembered, nearly every run finds something that was removed before.
test.each(seeds)('nothing that was removed or replaced comes back after an outage (seed %i)', async (seed) => {
  await run({ seed, maxMissedBytes: 1 << 20, hangs: seed % 5 === 0 })
})

test.each(seeds)('nothing that was removed comes back where little can be remembered (seed %i)', async (seed) => {
  await run({ seed, maxMissedBytes: 330, hangs: seed % 5 === 0 })
})

/**
 * Operations on one key that overlap, over tiers that take their time each in its own way. Once all are done, every tier has what was asked for last of all that
 * changed the key, or nothing: another tier has it then.
 */
async function overlap(seed: number): Promise<void> {
  const random = randomFrom(seed)
  const slow = (inner: MemoryStore): OutageStore => {
    const target = new OutageStore(inner)
    target.fate = (operation) => (operation !== 'drained' && random() < 0.6 ? 'hangs' : 'done')
    return target
  }
  const [first, last] = [slow(new MemoryStore()), slow(new MemoryStore())]
  const isSplit = seed % 2 === 0
  const store = tiered([
    { name: 'first', store: first, timeoutMs: 60_000, commitTimeoutMs: 60_000, ...(isSplit && { admit: ({ status }) => status === 404 }) },
    { name: 'last', store: last, timeoutMs: 60_000, commitTimeoutMs: 60_000, ...(isSplit && { admit: ({ status }) => status !== 404 }) }
  ])
  /** What may be found: undefined after a removal. */
  let latest: string | undefined
  const under: Promise<unknown>[] = []
  for (let i = 0; i < 60; i++) {
    const kind = random()
    if (kind < 0.5) {
      latest = String(i)
      const writer = store.put('k', sampleMeta({ status: random() < 0.5 ? 404 : 200, headers: { version: latest } }))
      writer.write(Buffer.from(latest))
      under.push(writer.commit())
    } else if (kind < 0.7) {
      latest = undefined
      under.push(store.delete('k'))
    } else if (kind < 0.9) {
      // What is read whole is copied to the first tier.
      under.push(store.get('k').then(async (entry) => entry && readAll(await entry.open(), 1 << 20)))
    } else {
      if (random() < 0.5) first.letGo()
      else last.letGo()
      await settle(1)
    }
  }
  let isDone = false
  const all = Promise.all(under).then(() => {
    isDone = true
  })
  const letAllGo = (): void => {
    first.letGo()
    last.letGo()
  }
  await until(() => {
    letAllGo()
    return isDone
  })
  await all
  // Copies may be under way still.
  for (const target of [first, last]) target.fate = () => 'done'
  letAllGo()
  await settle(20)
  const found = await Promise.all([first, last].map(async ({ inner }) => (await inner.get('k'))?.meta.headers.version))
  for (const version of found) if (version !== undefined) expect([seed, version]).toEqual([seed, latest])
  if (latest !== undefined) expect(found).toContain(latest)
  await store.close()
}

// Two commits that overlapped left the older response in the slower tier, and a removal left what was being committed.
test.each(seeds)('operations on one key that overlap count in the order in which they were asked for (seed %i)', overlap)
