import { readAll } from '@proxy/pipeline'
import { createFakeClock, type FakeClock } from '@proxy/testing'
import { beforeEach, describe, expect, test } from 'vitest'
import { sampleMeta } from '../src/conformance.ts'
import { type CacheMeta, type CacheStore, MemoryStore, type Tier, type TieredOptions, type TieredStore, type TierStats, tiered } from '../src/index.ts'
import { OutageStore } from './outage-store.ts'
import { settle, until } from './support.ts'

let clock: FakeClock
let near: MemoryStore
let far: OutageStore
let store: TieredStore
let errors: string[]

function setup(tier: Partial<Tier> = {}, options: TieredOptions = {}): void {
  clock = createFakeClock()
  near = new MemoryStore()
  far = new OutageStore()
  errors = []
  store = tiered(
    [
      { name: 'near', store: near },
      { name: 'far', store: far, timeoutMs: 10, commitTimeoutMs: 10, ...tier }
    ],
    { clock, stallMs: 10, onTierError: (name, error) => errors.push(`${name}: ${(error as Error).message}`), ...options }
  )
}
beforeEach(() => setup())

const meta = (changes: Partial<CacheMeta> = {}): CacheMeta => sampleMeta({ requestTime: clock.wallMs(), responseTime: clock.wallMs(), keepUntil: clock.wallMs() + 3_600_000, ...changes })

async function put(to: CacheStore, key: string, text: string, changes: Partial<CacheMeta> = {}): Promise<boolean> {
  const writer = to.put(key, meta(changes))
  if (!writer.write(Buffer.from(text))) await writer.drained()
  return writer.commit()
}

async function read(from: CacheStore, key: string): Promise<string | undefined> {
  const entry = await from.get(key)
  return entry === undefined ? undefined : (await readAll(await entry.open(), 1 << 20)).toString()
}

/** Of the far tier. */
const stats = (): TierStats => store.tierStats()[1] as TierStats

/** Lookups that the far tier fails, until it is left out. */
async function breakReads(): Promise<void> {
  far.all('fails')
  for (let i = 0; i < 5; i++) expect(await read(store, `none-${i}`)).toBeUndefined()
  expect(stats().readBreaker).toBe('open')
}

/** It is there again, and a lookup has found that out. */
async function recover(): Promise<void> {
  far.all('done')
  clock.advance(1000)
  await read(store, 'some key that is not there')
  await settle()
  expect(stats().readBreaker).toBe('closed')
}

describe('a tier that does not answer is left out', () => {
  test('a lookup that never settles costs the first five a bounded time, and the others nothing', async () => {
    await put(far.inner, 'k', 'text')
    far.all('hangs')
    for (let i = 0; i < 100; i++) expect(await read(store, 'k')).toBeUndefined()
    expect(far.count('get')).toBe(5)
    expect(stats()).toMatchObject({ hits: 0, misses: 0, errors: 5, timeouts: 5, readBreaker: 'open' })
    expect(errors).toEqual(Array.from({ length: 5 }, () => 'far: tier far did not answer within 10 ms'))
  })

  test('one request tries it after a while, and one at a time', async () => {
    await breakReads()
    far.all('hangs')
    const before = far.count('get')
    clock.advance(999)
    await read(store, 'k')
    expect(far.count('get')).toBe(before)
    clock.advance(1)
    await Promise.all(Array.from({ length: 50 }, () => read(store, 'k')))
    expect([far.count('get'), stats().readBreaker]).toEqual([before + 1, 'open'])
    await put(far.inner, 'k', 'text')
    far.all('done')
    clock.advance(1000)
    expect(await read(store, 'k')).toBe('text')
    expect(stats().readBreaker).toBe('closed')
  })

  test('where openMs is shorter than one request may take, the second probe waits for the first', async () => {
    setup({ timeoutMs: 5000, breaker: { failureThreshold: 1, openMs: 1 } })
    far.all('fails')
    await read(store, 'k')
    far.all('hangs')
    clock.advance(5000)
    const probe = read(store, 'k')
    clock.advance(4000)
    expect(await read(store, 'k')).toBeUndefined()
    expect(far.count('get')).toBe(2)
    await put(far.inner, 'k', 'text')
    far.all('done')
    far.letGo()
    expect(await probe).toBe('text')
  })

  // It cost every other request its time, for ever: there were never five failures in a row.
  test('also when every other lookup is too slow', async () => {
    let calls = 0
    far.fate = (operation) => (operation === 'get' && calls++ % 2 === 1 ? 'hangs' : 'done')
    for (let i = 0; i < 100; i++) await read(store, 'k')
    expect([far.count('get'), stats().timeouts]).toEqual([20, 10])
  })

  test('an answer that comes too late is discarded, and is no hit', async () => {
    await put(far.inner, 'k', 'text')
    let discarded = 0
    const { get } = far
    far.get = async (key) => {
      const entry = await get.call(far, key)
      return entry && { ...entry, discard: () => discarded++ }
    }
    far.all('hangs')
    expect(await read(store, 'k')).toBeUndefined()
    far.letGo()
    await settle()
    expect([discarded, stats().hits]).toEqual([1, 0])
  })

  test('a caller that gives up says nothing of the tier', async () => {
    const aborted = AbortSignal.abort()
    far.all('fails')
    for (let i = 0; i < 20; i++) await store.get('k', { signal: aborted })
    expect(stats()).toMatchObject({ errors: 0, readBreaker: 'closed' })
  })

  test('a body that never opens is a rejection in time, and counts', async () => {
    await put(far.inner, 'k', 'text')
    far.all('hangs', 'open')
    for (let i = 0; i < 5; i++) await expect(read(store, 'k')).rejects.toMatchObject({ code: 'TIER_TIMEOUT' })
    expect(stats()).toMatchObject({ errors: 5, timeouts: 5, bytesServed: 0 })
    // Bytes that are gone do not, nor does a range that cannot be.
    setup()
    await put(far.inner, 'k', 'text')
    far.all('fails', 'open')
    for (let i = 0; i < 20; i++) await expect(read(store, 'k')).rejects.toThrow('open failed')
    far.all('done')
    await expect((await store.get('k'))?.open({ start: 10, end: 11 })).rejects.toThrow(RangeError)
    expect(stats()).toMatchObject({ errors: 20, readBreaker: 'closed' })
  })

  test('while it is, it gets no writes, touches or removals either', async () => {
    await breakReads()
    far.all('done')
    const before = far.calls.length
    expect(await put(store, 'k', 'text')).toBe(true)
    expect(await store.touch('k', (await near.get('k'))?.version ?? '', meta())).toBe(true)
    await expect(store.delete('k')).rejects.toMatchObject({ code: 'TIER_UNAVAILABLE' })
    expect([far.calls.length - before, stats().writesGivenUp]).toEqual([0, 1])
    expect(await read(near, 'k')).toBeUndefined()
  })

  test('writes that fail leave lookups alone', async () => {
    await put(far.inner, 'k', 'text')
    far.all('hangs', 'commit')
    // Between them, what is removed in its stead goes through.
    for (let i = 0; i < 20; i++) expect(await put(store, `k${i}`, 'text')).toBe(true)
    expect(stats()).toMatchObject({ timeouts: 5, writesGivenUp: 20, writeBreaker: 'open', readBreaker: 'closed' })
    expect(far.count('delete')).toBe(20)
    expect(await read(store, 'k')).toBe('text')
    far.all('done')
    clock.advance(1000)
    expect(await put(store, 'k2', 'new')).toBe(true)
    expect([stats().writeBreaker, await read(far.inner, 'k2')]).toEqual(['closed', 'new'])
  })

  test('writes that hold up the others too', async () => {
    far.all('hangs', 'drained')
    for (let i = 0; i < 20; i++) expect(await put(store, `k${i}`, 'text')).toBe(true)
    expect([far.count('drained'), stats().writesGivenUp, stats().writeBreaker]).toEqual([5, 20, 'open'])
  })

  test('a store that judges itself is not judged twice', async () => {
    Object.assign(far, { guarded: true })
    store = tiered([{ name: 'far', store: far }], { clock, stallMs: 10 })
    far.all('fails')
    for (let i = 0; i < 50; i++) await read(store, 'k')
    for (let i = 0; i < 50; i++) await expect(store.delete(`k${i}`)).rejects.toThrow('delete failed')
    expect([far.count('get'), far.count('delete')]).toEqual([50, 50])
    expect(store.tierStats()[0]).toMatchObject({ readBreaker: 'closed', writeBreaker: 'closed' })
    // That it holds up others it does not know by itself, and what it does with short requests is its own business.
    far.all('hangs', 'drained')
    for (let i = 0; i < 20; i++) await put(store, 'k', 'text')
    expect(far.count('drained')).toBe(5)
    far.all('done')
    await store.delete('k')
    expect(far.count('delete')).toBe(51)
  })

  test('its own state is what the tier shows, where it is the worse one', () => {
    Object.assign(far, { guarded: true, stats: () => ({ readBreaker: 'half-open', writeBreaker: 'open', entries: 3, evictions: 4, timeouts: 5, pendingBytes: 6 }) })
    store = tiered([{ name: 'far', store: far }])
    expect(store.tierStats()[0]).toMatchObject({ readBreaker: 'half-open', writeBreaker: 'open', entries: 3, bytes: undefined, evictions: 4, timeouts: 5, bufferedBytes: 6 })
  })
})

describe('what a tier that is away should have forgotten', () => {
  // A removal that did not reach a tier was reported, and then forgotten: after the outage the old response was served again.
  test.each(['fails', 'hangs'] as const)('is not found in it when it is back: removals that it %s', async (fate) => {
    await put(store, 'k', 'old')
    far.all(fate)
    await expect(store.delete('k')).rejects.toThrow()
    far.all('done')
    expect(await read(far.inner, 'k')).toBe('old')
    expect(await read(store, 'k')).toBeUndefined()
    // The first lookup of anything has it removed.
    await until(() => stats().missedRemovals === 0)
    expect(await far.inner.get('k')).toBeUndefined()
  })

  test('is not found while and after it is left out', async () => {
    for (let i = 0; i < 20; i++) await put(store, `k${i}`, 'old')
    await breakReads()
    for (let i = 0; i < 20; i++) await expect(store.delete(`k${i}`)).rejects.toMatchObject({ code: 'TIER_UNAVAILABLE' })
    expect(stats().missedRemovals).toBe(20)
    await recover()
    for (let i = 0; i < 20; i++) expect(await read(store, `k${i}`)).toBeUndefined()
    await until(() => stats().missedRemovals === 0)
    expect(far.inner.stats().entries).toBe(0)
  })

  test('a removal of one version is one', async () => {
    await put(store, 'k', 'old')
    const version = (await store.get('k'))?.version ?? ''
    far.all('fails', 'delete')
    await expect(store.delete('k', version)).rejects.toThrow('delete failed')
    far.all('done')
    expect([await read(near, 'k'), await read(store, 'k')]).toEqual([undefined, undefined])
  })

  // While one tier failed to remove a version, what further tiers held under the key was left there.
  test('a version that one tier had is gone from the others, whatever the one between them says', async () => {
    const between = new OutageStore()
    store = tiered([
      { name: 'near', store: near },
      { name: 'between', store: between },
      { name: 'far', store: far }
    ])
    await put(store, 'k', 'old')
    between.all('fails', 'delete')
    await expect(store.delete('k', (await near.get('k'))?.version)).rejects.toThrow('delete failed')
    expect([await read(near, 'k'), await read(far, 'k'), await read(store, 'k')]).toEqual([undefined, undefined, undefined])
  })

  test('a lookup that was under way finds nothing either', async () => {
    await put(far.inner, 'k', 'old')
    setupHeldGet()
    const lookup = read(store, 'k')
    await settle()
    far.fate = (operation) => (operation === 'delete' ? 'fails' : 'done')
    await expect(store.delete('k')).rejects.toThrow()
    far.letGo()
    expect(await lookup).toBeUndefined()
  })

  const setupHeldGet = (): void => {
    far.fate = (operation) => (operation === 'get' ? 'hangs' : 'done')
  }

  test('something new put there is found, and what was begun before is not', async () => {
    await put(store, 'k', 'old')
    const begun = store.put('k', meta())
    begun.write(Buffer.from('as old'))
    far.all('fails', 'delete')
    await expect(store.delete('k')).rejects.toThrow()
    clock.advance(1)
    expect(await begun.commit()).toBe(true)
    await near.delete('k')
    expect([await read(far.inner, 'k'), await read(store, 'k')]).toEqual(['as old', undefined])
    await settle()
    await put(store, 'k', 'new')
    await near.delete('k')
    expect(await read(store, 'k')).toBe('new')
  })

  test('a newer response elsewhere hides it: in a nearer tier, and in one further away', async () => {
    await put(store, 'k', 'old')
    await breakReads()
    await put(store, 'k', 'new')
    await recover()
    await near.delete('k')
    expect([await read(far.inner, 'k'), await read(store, 'k')]).toEqual(['old', undefined])

    store = tiered(
      [
        { name: 'far', store: far },
        { name: 'near', store: near }
      ],
      { clock }
    )
    await put(store, 'm', 'old')
    far.all('fails')
    for (let i = 0; i < 5; i++) await read(store, 'm')
    clock.advance(1)
    await put(store, 'm', 'new')
    far.all('done')
    clock.advance(1000)
    await read(store, 'n')
    expect(await read(store, 'm')).toBe('new')
    await settle()
    expect(await read(far.inner, 'm')).toBe('new')
  })

  test('a copy from further away replaces it', async () => {
    setup()
    const third = new MemoryStore()
    store = tiered(
      [
        { name: 'far', store: far },
        { name: 'third', store: third }
      ],
      { clock, stallMs: 10 }
    )
    await put(far.inner, 'k', 'old')
    far.all('fails', 'delete')
    await expect(store.delete('k')).rejects.toThrow()
    await put(third, 'k', 'new')
    expect(await read(store, 'k')).toBe('new')
    await settle(20)
    expect([await read(far.inner, 'k'), store.tierStats()[0]?.missedRemovals]).toEqual(['new', 0])
  })

  test('a commit that goes through after it was given up is taken back', async () => {
    await put(store, 'k', 'old')
    far.all('hangs', 'commit')
    clock.advance(1)
    expect(await put(store, 'k', 'new')).toBe(true)
    await store.delete('k')
    far.all('done')
    far.letGo()
    await settle()
    expect([await read(store, 'k'), await far.inner.get('k')]).toEqual([undefined, undefined])
  })

  test('more of them than are remembered: all that it holds counts as outdated, what comes later does not', async () => {
    setup({}, { maxMissedBytes: 1000 })
    for (let i = 0; i < 50; i++) await put(store, `k${i}`, 'old')
    await put(store, 'other', 'old')
    await breakReads()
    clock.advance(1)
    for (let i = 0; i < 50; i++) await expect(store.delete(`k${i}`)).rejects.toThrow()
    expect(stats().missedRemovals).toBeLessThan(10)
    await recover()
    await near.delete('other')
    for (let i = 0; i < 50; i++) expect(await read(store, `k${i}`)).toBeUndefined()
    expect(await read(store, 'other')).toBeUndefined()
    await settle()
    // They are removed when they are met.
    expect(far.inner.stats().entries).toBe(0)
    await put(store, 'other', 'new')
    await near.delete('other')
    expect(await read(store, 'other')).toBe('new')
  })

  test('nothing is copied to a tier that would take it for outdated', async () => {
    setup({}, { maxMissedBytes: 1 })
    store = tiered(
      [
        { name: 'far', store: far },
        { name: 'near', store: near }
      ],
      { clock, maxMissedBytes: 1 }
    )
    await put(near, 'k', 'text')
    far.all('fails', 'delete')
    await expect(store.delete('another')).rejects.toThrow()
    for (let i = 0; i < 3; i++) expect(await read(store, 'k')).toBe('text')
    await settle()
    expect(store.tierStats()[0]?.promotions).toBe(0)
    clock.advance(1)
    await put(near, 'k', 'newer')
    expect(await read(store, 'k')).toBe('newer')
    await settle()
    expect(store.tierStats()[0]?.promotions).toBe(1)
  })

  test('where nothing but missed keys is asked for, the tier is tried on nobody’s time', async () => {
    await put(store, 'k', 'old')
    await breakReads()
    await expect(store.delete('k')).rejects.toThrow()
    far.all('done')
    clock.advance(1000)
    expect(await read(store, 'k')).toBeUndefined()
    await settle()
    expect(stats().readBreaker).toBe('closed')
    expect(await read(store, 'k')).toBeUndefined()
    await until(() => stats().missedRemovals === 0)
    expect(await put(store, 'k', 'new')).toBe(true)
    expect(await read(far.inner, 'k')).toBe('new')
  })

  test('making up for it is tried once a second, and ends with close', async () => {
    Object.assign(far, { guarded: true })
    store = tiered([{ name: 'far', store: far }], { clock })
    for (let i = 0; i < 100; i++) await put(store, `k${i}`, 'old')
    far.all('fails', 'delete')
    for (let i = 0; i < 100; i++) await expect(store.delete(`k${i}`)).rejects.toThrow()
    for (let i = 0; i < 50; i++) await read(store, 'other')
    await settle()
    expect(far.count('delete')).toBe(101)
    clock.advance(1000)
    for (let i = 0; i < 50; i++) await read(store, 'other')
    await settle()
    expect(far.count('delete')).toBe(102)
    far.all('hangs', 'delete')
    clock.advance(1000)
    await read(store, 'other')
    const closed = store.close()
    far.letGo()
    await closed
    expect(far.count('delete')).toBe(103)
  })
})

describe('bytes of writes that are not settled', () => {
  const chunk = Buffer.alloc(1000)

  test('are bounded for all writes of a tier together; one that does not fit is given up', async () => {
    setup({ maxBufferedBytes: 10_000 })
    far.all('hangs', 'commit')
    const writers = Array.from({ length: 4 }, (_, i) => store.put(`k${i}`, meta()))
    for (let i = 0; i < 3; i++) for (const writer of writers) writer.write(chunk)
    expect(stats()).toMatchObject({ bufferedBytes: 9000, writesGivenUp: 1 })
    expect(await Promise.all(writers.map((writer) => writer.commit()))).toEqual([true, true, true, true])
    // Nobody waits for them any more, but the store still has them.
    expect(stats().bufferedBytes).toBe(9000)
    far.letGo()
    await settle()
    expect(stats().bufferedBytes).toBe(0)
    for (let i = 0; i < 4; i++) expect((await near.get(`k${i}`))?.meta.length).toBe(3000)
  })

  test('do not count once the store has asked for a pause and ended it, or the write is given up', async () => {
    setup({ maxBufferedBytes: 10_000 })
    far.fate = (operation) => (operation === 'drained' ? 'hangs' : 'done')
    const writer = store.put('k', meta())
    for (let i = 0; i < 5; i++) {
      for (let j = 0; j < 5; j++) writer.write(chunk)
      const drained = writer.drained()
      far.letGo()
      await drained
      expect(stats().bufferedBytes).toBe(0)
    }
    writer.write(chunk)
    writer.abort()
    expect(stats()).toMatchObject({ bufferedBytes: 0, writesGivenUp: 0 })
    const stalled = store.put('m', meta())
    stalled.write(chunk)
    await stalled.drained()
    expect(stats()).toMatchObject({ bufferedBytes: 0, writesGivenUp: 1 })
  })

  test('are not counted for a store that bounds them itself, unless it is asked for', async () => {
    Object.assign(far, { guarded: true })
    store = tiered([{ name: 'far', store: far }])
    store.put('k', meta()).write(chunk)
    expect(store.tierStats()[0]?.bufferedBytes).toBe(0)
    store = tiered([{ name: 'far', store: far, maxBufferedBytes: 1500 }])
    const writer = store.put('k', meta())
    for (let i = 0; i < 2; i++) writer.write(chunk)
    expect([writer.failed, await writer.commit()]).toEqual([true, false])
  })
})

test('a store that throws where it must not costs its own share alone', async () => {
  far.put = () => {
    throw new Error('put threw')
  }
  expect(await put(store, 'k', 'text')).toBe(true)
  const { put: original } = OutageStore.prototype
  far.put = (key, about) => ({
    ...original.call(far, key, about),
    write: () => {
      throw new Error('write threw')
    }
  })
  expect(await put(store, 'k', 'text')).toBe(true)
  far.put = (key, about) => ({ ...original.call(far, key, about), write: () => false, drained: () => Promise.reject(new Error('drained rejected')) })
  expect(await put(store, 'k', 'text')).toBe(true)
  expect(errors).toEqual(['far: put threw', 'far: write threw', 'far: drained rejected'])
  far.get = () => {
    throw new Error('get threw')
  }
  expect([await read(store, 'k'), await read(store, 'none')]).toEqual(['text', undefined])
})

test('a close that never settles is given up', async () => {
  far.close = () => new Promise(() => {})
  await expect(store.close()).rejects.toMatchObject({ code: 'TIER_TIMEOUT' })
})

test.each<[Partial<Tier>, TieredOptions]>([
  [{ timeoutMs: 0 }, {}],
  [{ commitTimeoutMs: Number.NaN }, {}],
  [{ maxBufferedBytes: -1 }, {}],
  [{ breaker: { openMs: 0 } }, {}],
  [{ breaker: { failureThreshold: 0 } }, {}],
  [{}, { stallMs: 0 }],
  [{}, { maxMissedBytes: 0 }]
])('settings that make no sense are refused: %j %j', (tier, options) => {
  expect(() => setup(tier, options)).toThrow(TypeError)
})

describe('a commit that is given up and lands later', () => {
  // The removal that clears the tier was done before it landed, so that it was found until it had been removed once more.
  test('is never found, not even until it has been removed', async () => {
    far.all('hangs', 'commit')
    expect(await put(store, 'k', 'late')).toBe(true)
    expect(far.count('delete')).toBe(1)
    await near.delete('k')
    far.all('hangs', 'delete')
    far.letGo()
    await until(() => far.count('delete') === 2)
    expect(await read(far.inner, 'k')).toBe('late')
    expect(await read(store, 'k')).toBeUndefined()
    far.all('done')
    far.letGo()
    await settle()
    expect(await read(far.inner, 'k')).toBeUndefined()
    expect(await put(far, 'k', 'another')).toBe(true)
    expect(await read(store, 'k')).toBe('another')
    await store.close()
  })

  test('keeps nobody from closing when it never lands, and hides what was put there meanwhile', async () => {
    far.all('hangs', 'commit')
    await put(store, 'k', 'late')
    far.all('done')
    await near.delete('k')
    await put(far.inner, 'k', 'other')
    expect(await read(store, 'k')).toBeUndefined()
    expect(stats().missedRemovals).toBe(0)
    await store.close()
  })
})
