import { randomBytes } from 'node:crypto'
import { type BodySink, type Flow, toSource } from '@proxy/pipeline'
import { expect, onTestFinished, test, vi } from 'vitest'
import { CROWD, Turns } from '../src/turns.ts'
import { folder, MIB, openStore, put } from './support.ts'

test('so many at a time, the others in the order in which they came', async () => {
  const turns = new Turns(2)
  const order: number[] = []
  expect([turns.take(), turns.take(), turns.isCrowded]).toEqual([undefined, undefined, false])
  const waiting = Array.from({ length: CROWD }, async (_, n) => {
    await turns.take()
    order.push(n)
  })
  expect(turns.isCrowded).toBe(true)
  turns.done()
  await waiting[0]
  expect([order, turns.isCrowded]).toEqual([[0], false])
  for (let i = 0; i < CROWD + 1; i++) turns.done()
  await Promise.all(waiting)
  expect(order).toEqual(Array.from({ length: CROWD }, (_, n) => n))
  expect([turns.take(), turns.take()]).toEqual([undefined, undefined])
  expect(turns.take()).toBeInstanceOf(Promise)
})

// A thousand clients behind a write that was not kept in memory had each 256 KiB of it read ahead, and were cut because the reads of all of them together took
// longer than one may take.
test('many bodies at once: each holds one block while it waits for its reader, and all get everything', async () => {
  const store = await openStore(await folder())
  const body = randomBytes(2 * MIB)
  await put(store, 'key', body)
  const before = store.stats().bytesRead
  const readers = await Promise.all(
    Array.from({ length: 400 }, async () => {
      const reader = new PausingReader()
      const entry = await store.get('key')
      if (entry === undefined) throw new Error('it is not stored')
      reader.flow = toSource(await entry.open()).start(reader)
      return reader
    })
  )
  onTestFinished(() => {
    for (const { flow } of readers) flow?.abort()
  })
  // The head of the file, and a block; those that came before it was crowded have four.
  expect((store.stats().bytesRead - before) / readers.length).toBeLessThan(2 * 65_536)
  for (const reader of readers) reader.hurry()
  await vi.waitUntil(() => readers.every(({ state }) => state !== 'reading'), { timeout: 60_000 })
  expect(readers.filter(({ state, bytes }) => state !== 'ended' || bytes !== body.length)).toEqual([])
})

/** Takes one chunk, and more when told to. */
class PausingReader implements BodySink {
  flow: Flow | undefined
  bytes = 0
  state: 'reading' | 'ended' | 'failed' = 'reading'
  private paused = true

  data(chunk: Uint8Array): boolean {
    this.bytes += chunk.byteLength
    return !this.paused
  }

  end(): void {
    this.state = 'ended'
  }

  error(): void {
    this.state = 'failed'
  }

  hurry(): void {
    this.paused = false
    this.flow?.resume()
  }
}
