import type { BodySource, ProxyError } from '@proxy/pipeline'
import { describe, expect, test, vi } from 'vitest'
import { sampleBytes } from '../src/conformance.ts'
import { writeAborted } from '../src/errors.ts'
import { MemoryStore } from '../src/memory-store.ts'
import type { CacheEntry, CacheWriter } from '../src/store.ts'
import { tiered } from '../src/tiers.ts'
import { CHUNK, send, sendWhileWanted, setup, WINDOW, withoutReadFrom } from './shared-body-setup.ts'
import { digest, PushSource, settle, TestReader, until } from './support.ts'

/** Lets `open` be what the entries of `store` are opened with. */
function openWith(store: MemoryStore, open: CacheEntry['open']): void {
  const get = store.get.bind(store)
  store.get = async (key) => {
    const entry = await get(key)
    return entry && { version: entry.version, meta: entry.meta, open, discard() {} }
  }
}

describe('a store that does not do its part', () => {
  test('it refuses in the middle: those on the window go on at the pace of the slowest, those behind it are cut', async () => {
    const bytes = sampleBytes(2_000_000)
    const memory = new MemoryStore({ maxBytes: 64 << 20, maxEntryBytes: 1_000_000 })
    const { body, source, leader, ...rest } = setup({ memory })
    const fast = new TestReader(leader)
    const behind = new TestReader(body.reader() ?? null, { slow: true })
    send(source, bytes, 0, 900_000)
    expect(behind.state).toBe('reading')
    const near = new TestReader(body.reader() ?? null)
    near.slow = true
    send(source, bytes, 900_000, 1_050_000)
    expect(behind.state).toBe('failed')
    expect(behind.failure?.code).toBe('CACHE_READER_LOST')
    expect(memory.stats().bytes).toBe(0)
    // `near` has had little since it came, but the window still has what comes next.
    expect(near.state).toBe('reading')
    let at = sendWhileWanted(source, bytes, 1_050_000)
    expect(at).toBeLessThan(1_300_000)
    near.hurry()
    at = sendWhileWanted(source, bytes, at)
    expect(at).toBe(bytes.length)
    source.end()
    expect([fast.state, fast.hash]).toEqual(['ended', digest(bytes)])
    expect([near.state, near.hash]).toEqual(['ended', digest(bytes)])
    expect(await body.settled).toBe(false)
    expect(rest.errors).toEqual([])
  })

  // It was cut in the middle, as it had read on from the tier that gave up: the other one had every byte.
  test.each(['reading', 'paused'])('one of two tiers refuses it in the middle: who read on from that one goes on from the other (%s)', async (how) => {
    const bytes = sampleBytes(2_000_000)
    const near = new MemoryStore({ maxBytes: 64 << 20, maxEntryBytes: 1_000_000 })
    const far = new MemoryStore({ maxBytes: 64 << 20, maxEntryBytes: 32 << 20 })
    const store = tiered([
      { name: 'near', store: near },
      { name: 'far', store: far }
    ])
    const { body, source, leader, ...rest } = setup({ store })
    const fast = new TestReader(leader)
    const behind = new TestReader(body.reader() ?? null, { slow: true })
    send(source, bytes, 0, 900_000)
    while (how === 'reading' && behind.state === 'reading' && behind.bytes < 300_000) behind.take()
    send(source, bytes, 900_000, 1_500_000)
    while (how === 'reading' && behind.state === 'reading' && behind.bytes < 700_000) behind.take()
    expect(behind.state).toBe('reading')
    send(source, bytes, 1_500_000)
    source.end()
    behind.hurry()
    await until(() => behind.state !== 'reading')
    expect([fast.state, fast.hash]).toEqual(['ended', digest(bytes)])
    expect([behind.state, behind.hash]).toEqual(['ended', digest(bytes)])
    expect([await body.settled, rest.errors]).toEqual([true, []])
  })

  // One that threw in abort() left whoever waited for the copy waiting, and threw into the origin's body or the client's.
  test.each(['abort', 'failed', 'readFrom', 'drained'])('a writer throws: %s', async (operation) => {
    const bytes = sampleBytes(1_000_000)
    const broken = new Error(`${operation} threw`)
    const fail = (): never => {
      throw broken
    }
    const whole = setup({
      wrap: (writer) => ({
        ...withoutReadFrom(writer),
        readFrom: (offset) => (operation === 'readFrom' ? fail() : (writer.readFrom?.(offset) ?? null)),
        write: (chunk) => writer.write(chunk) && operation !== 'drained',
        drained: () => (operation === 'drained' ? fail() : writer.drained()),
        abort: () => (operation === 'abort' ? fail() : writer.abort()),
        get failed() {
          return operation === 'failed' ? fail() : writer.failed
        }
      })
    })
    const fast = new TestReader(whole.leader)
    const behind = new TestReader(whole.body.reader() ?? null, { slow: true })
    send(whole.source, bytes, 0, 600_000)
    if (operation === 'abort') whole.source.fail()
    else {
      behind.hurry()
      send(whole.source, bytes, 600_000)
      whole.source.end()
    }
    await until(() => fast.state !== 'reading' && behind.state !== 'reading')
    expect(await whole.body.settled).toBe(operation === 'readFrom')
    if (operation === 'abort') expect([fast.state, behind.state]).toEqual(['failed', 'failed'])
    else expect([fast.state, fast.hash]).toEqual(['ended', digest(bytes)])
    if (operation !== 'failed') expect(whole.errors[0]).toBe(broken)
  })

  // Who had waited in vain for the store, and asked the origin by then, went on driving the fill at full speed for readers that took nothing.
  test('who waits for the stored copy sets the pace until it gives up', async () => {
    const { body, source, leader } = setup({ wrap: withoutReadFrom, length: 2_000_000 })
    new TestReader(leader, { slow: true })
    const bytes = sampleBytes(2_000_000)
    const at = sendWhileWanted(source, bytes, 0)
    expect(at).toBeLessThan(1_000_000)
    const waiting = body.stored(20)
    expect(source.paused).toBe(false)
    source.push(bytes.subarray(at, at + CHUNK))
    expect(source.paused).toBe(false)
    await waiting
    source.push(bytes.subarray(at + CHUNK, at + 2 * CHUNK))
    expect(source.paused).toBe(true)
  })

  test('where it reads on fails time and again: it is cut, and not asked for ever', async () => {
    const bytes = sampleBytes(1_000_000)
    let asked = 0
    const broken = (): BodySource => {
      asked++
      return {
        start(sink) {
          sink.error(writeAborted())
          return { resume() {}, abort() {} }
        },
        discard() {}
      }
    }
    const { body, source, leader } = setup({ wrap: (writer) => ({ ...withoutReadFrom(writer), readFrom: broken }) })
    const fast = new TestReader(leader)
    const behind = new TestReader(body.reader() ?? null, { slow: true })
    send(source, bytes)
    behind.take()
    expect([fast.state, behind.state, behind.failure?.code]).toEqual(['reading', 'failed', 'STORE_WRITE_ABORTED'])
    expect(asked).toBeLessThan(10)
  })

  // Who had once fallen behind the window, or came after its beginning had passed, stayed there, however fast: it was cut with the write.
  test('it refuses in the middle: who came late and has caught up gets all', () => {
    const bytes = sampleBytes(2_000_000)
    const { body, source, leader } = setup({ memory: new MemoryStore({ maxBytes: 64 << 20, maxEntryBytes: 1_000_000 }) })
    const stuck = new TestReader(leader, { slow: true })
    const other = new TestReader(body.reader() ?? null)
    send(source, bytes, 0, 510_000)
    const late = new TestReader(body.reader() ?? null)
    other.leave()
    let at = 510_000
    for (let i = 1; at < bytes.length; i++) {
      const end = Math.min(at + ((i * 7919) % CHUNK) + 1, bytes.length)
      source.push(bytes.subarray(at, end))
      at = end
    }
    source.end()
    expect(stuck.state).toBe('failed')
    expect([late.state, late.hash]).toEqual(['ended', digest(bytes)])
  })

  // Nobody was on the window, so nobody set the pace: the write ran ahead of its readers until it was too much, and all of them were cut.
  test('it refuses a body of unknown length in the middle: the fastest of those behind the window has reached it by then', () => {
    const bytes = sampleBytes(2_000_000)
    const { body, source, leader } = setup({ memory: new MemoryStore({ maxBytes: 64 << 20, maxEntryBytes: 1_000_000 }) })
    const first = new TestReader(leader)
    send(source, bytes, 0, 510_000)
    const slow = new TestReader(body.reader() ?? null, { slow: true })
    first.leave()
    let at = 510_000
    while (at < bytes.length) {
      at = sendWhileWanted(source, bytes, at)
      expect(at - slow.bytes).toBeLessThanOrEqual(WINDOW + 510_000)
      if (at > 1_000_000) expect(at - slow.bytes).toBeLessThanOrEqual(2 * WINDOW)
      expect(body.heldBytes).toBeLessThanOrEqual(WINDOW + 2 * (CHUNK + 128))
      slow.take()
    }
    source.end()
    slow.hurry()
    expect([slow.state, slow.hash]).toEqual(['ended', digest(bytes)])
  })

  // Whoever stopped reading what nobody kept held up all others for as long as it liked.
  test('nothing is kept: who does not get through a window while others wait for it is cut, who does is not', async () => {
    const bytes = sampleBytes(2_000_000)
    const { body, source, leader } = setup({ maxObjectBytes: 10, storeStallMs: 50 })
    const fast = new TestReader(leader)
    const stuck = new TestReader(body.reader() ?? null, { slow: true })
    const slow = new TestReader(body.reader() ?? null, { slow: true })
    let at = sendWhileWanted(source, bytes, 0)
    expect(at).toBeLessThan(bytes.length)
    while (slow.bytes < at) slow.take()
    expect(source.paused).toBe(true)
    await vi.waitFor(() => expect(stuck.state).toBe('failed'))
    expect(stuck.failure?.code).toBe('CACHE_READER_LOST')
    expect(source.paused).toBe(false)
    slow.hurry()
    at = sendWhileWanted(source, bytes, at)
    expect(at).toBe(bytes.length)
    source.end()
    expect([fast.state, fast.hash]).toEqual(['ended', digest(bytes)])
    expect([slow.state, slow.hash]).toEqual(['ended', digest(bytes)])
  })

  // The window believed its bytes to be in the store after that had refused them, and dropped what a slow reader still needed;
  // and where it knew, it grew without bound, as one hungry reader was enough to fetch more.
  test('it refused from the start: nobody is cut, the slowest sets the pace', () => {
    const bytes = sampleBytes(2_000_000)
    const memory = new MemoryStore({ maxBytes: 64 << 20, maxEntryBytes: 1000 })
    const { body, source, leader } = setup({ memory })
    const fast = new TestReader(leader)
    const slow = new TestReader(body.reader() ?? null, { slow: true })
    let at = 0
    while (at < bytes.length) {
      at = sendWhileWanted(source, bytes, at)
      expect(body.heldBytes).toBeLessThanOrEqual(WINDOW + 2 * (CHUNK + 128))
      slow.take()
      slow.take()
      // As soon as it has made room, not only when it has had all.
      expect(source.paused).toBe(false)
    }
    source.end()
    while (slow.state === 'reading') slow.take()
    expect([fast.state, fast.hash]).toEqual(['ended', digest(bytes)])
    expect([slow.state, slow.hash]).toEqual(['ended', digest(bytes)])
  })

  test('what is too large for the cache is passed on', async () => {
    const bytes = sampleBytes(1_000_000)
    const all = setup({ maxObjectBytes: 500_000 })
    const reader = new TestReader(all.leader)
    send(all.source, bytes)
    all.source.end()
    expect([reader.state, reader.hash]).toEqual(['ended', digest(bytes)])
    expect(await all.body.settled).toBe(false)
    expect(all.unkept).toBe(1)
  })

  test('nobody reads and nothing is kept: nothing is fetched', () => {
    const { source, leader } = setup({ maxObjectBytes: 100 })
    leader.discard()
    source.push(Buffer.alloc(101))
    expect(source.aborted).toBe(true)
  })

  test('it does not keep up: readers wait for it', async () => {
    const drains: PromiseWithResolvers<void>[] = []
    const { source, leader } = setup({
      wrap: (writer) => ({
        write: (chunk) => {
          writer.write(chunk)
          return false
        },
        drained: () => {
          const drain = Promise.withResolvers<void>()
          drains.push(drain)
          return drain.promise
        },
        commit: () => writer.commit(),
        abort: () => writer.abort()
      })
    })
    const reader = new TestReader(leader)
    expect(source.push('a')).toBe(false)
    // Already under way when the pause was asked for.
    expect(source.push('b')).toBe(false)
    expect(drains.length).toBe(1)
    drains[0]?.resolve()
    await settle()
    expect(source.paused).toBe(false)
    source.push('c')
    source.end()
    expect([reader.state, reader.text]).toEqual(['ended', 'abc'])
  })

  test('it never drains: it is left out, and the readers go on', async () => {
    const bytes = sampleBytes(500_000)
    let aborted = 0
    const { body, source, leader, errors } = setup({
      storeStallMs: 10,
      wrap: () => ({ write: () => false, drained: () => new Promise(() => {}), commit: () => Promise.resolve(true), abort: () => aborted++ })
    })
    const reader = new TestReader(leader)
    expect(source.push(bytes.subarray(0, CHUNK))).toBe(false)
    await new Promise<void>((resolve) => {
      const look = setInterval(() => {
        if (source.paused) return
        clearInterval(look)
        resolve()
      }, 1)
    })
    for (let at = CHUNK; at < bytes.length; at += CHUNK) expect(source.push(bytes.subarray(at, at + CHUNK))).toBe(true)
    source.end()
    expect([reader.state, reader.hash, aborted]).toEqual(['ended', digest(bytes), 1])
    expect(await body.settled).toBe(false)
    expect((errors[0] as ProxyError).code).toBe('STORE_STALLED')
  })

  test.each<[string, Partial<CacheWriter>]>([
    [
      'write throws',
      {
        write: () => {
          throw new Error('bug')
        }
      }
    ],
    ['commit rejects', { commit: () => Promise.reject(new Error('bug')) }],
    ['drained rejects', { write: () => false, drained: () => Promise.reject(new Error('bug')) }]
  ])('it breaks its contract, %s: the readers notice nothing', async (_, broken) => {
    const { body, source, leader } = setup({ wrap: (writer) => ({ ...withoutReadFrom(writer), ...broken }) })
    const reader = new TestReader(leader)
    source.push('a')
    await settle()
    source.push('b')
    source.end()
    expect([reader.state, reader.text]).toEqual(['ended', 'ab'])
    expect(await body.settled).toBe(broken.drained !== undefined)
  })

  test.each<[string, (store: MemoryStore) => void]>([
    ['get rejects', (store) => (store.get = () => Promise.reject(new Error('down')))],
    ['the entry is gone', (store) => void store.delete('key')],
    ['open rejects', (store) => openWith(store, () => Promise.reject(new Error('gone')))]
  ])('a reader behind the window, and %s: cut, never ended', async (_, spoil) => {
    const bytes = sampleBytes(1_000_000)
    const { body, source, leader, store } = setup({ wrap: withoutReadFrom })
    const fast = new TestReader(leader)
    const slow = new TestReader(body.reader() ?? null, { slow: true })
    send(source, bytes)
    source.end()
    await body.settled
    spoil(store)
    slow.hurry()
    await until(() => slow.state !== 'reading')
    expect([slow.state, slow.failure?.code]).toEqual(['failed', 'CACHE_READER_LOST'])
    expect(fast.state).toBe('ended')
  })

  // The file that a write went to is closed with the commit: who had stopped reading by then, and went on later, was cut.
  test.each([
    ['the entry is read', false],
    ['the entry is gone, and the write can still be read', true]
  ])('a reader behind the window goes on after the commit: %s', async (_, remembers) => {
    const bytes = sampleBytes(1_000_000)
    let committed = false
    const { body, source, leader, store } = setup({
      wrap: (writer) => ({
        ...withoutReadFrom(writer),
        commit: async () => (committed = await writer.commit()),
        readFrom: (offset) => {
          if (committed && !remembers) throw new Error('the file is closed')
          return writer.readFrom?.(offset) ?? null
        }
      })
    })
    const fast = new TestReader(leader)
    const slow = new TestReader(body.reader() ?? null, { slow: true })
    send(source, bytes)
    source.end()
    await body.settled
    if (remembers) await store.delete('key')
    slow.hurry()
    await until(() => slow.state !== 'reading')
    expect([slow.state, slow.hash, fast.state]).toEqual(['ended', digest(bytes), 'ended'])
  })

  test('a reader behind the window leaves while the rest is being stored', async () => {
    const bytes = sampleBytes(1_000_000)
    const rest = new PushSource()
    const { body, source, leader, store } = setup({ wrap: withoutReadFrom })
    openWith(store, () => Promise.resolve(rest))
    const fast = new TestReader(leader)
    const slow = new TestReader(body.reader() ?? null, { slow: true })
    send(source, bytes)
    slow.hurry()
    slow.leave()
    source.end()
    expect(await body.settled).toBe(true)
    await settle()
    expect([slow.state, fast.state, rest.started, rest.discarded]).toEqual(['left', 'ended', false, true])
  })
})
