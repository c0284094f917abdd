import { describe, expect, test } from 'vitest'
import { sampleBytes } from '../src/conformance.ts'
import { CHUNK, type Setup, send, sendWhileWanted, setup, WINDOW, withoutReadFrom } from './shared-body-setup.ts'
import { digest, settle, TestReader, until } from './support.ts'

/** A joiner has fallen behind the window, and the leader, far ahead of it, has stopped reading. `at` is where the source was paused. */
function stoppedAhead({ body, source, leader }: Setup, bytes: Buffer): { first: TestReader; second: TestReader; at: number } {
  const first = new TestReader(leader)
  const second = new TestReader(body.reader() ?? null, { slow: true })
  send(source, bytes, 0, 1_000_000)
  first.slow = true
  return { first, second, at: sendWhileWanted(source, bytes, 1_000_000) }
}

describe('pace', () => {
  test('a slow joiner does not slow the leader, and costs no memory beyond the window', async () => {
    const bytes = sampleBytes(10_000_000)
    const { body, source, leader } = setup({ length: bytes.length })
    const fast = new TestReader(leader)
    const slow = new TestReader(body.reader() ?? null, { slow: true })
    let most = 0
    for (let at = 0; at < bytes.length; at += CHUNK) {
      expect(source.push(bytes.subarray(at, at + CHUNK))).toBe(true)
      most = Math.max(most, body.heldBytes)
    }
    source.end()
    expect([fast.state, fast.hash]).toEqual(['ended', digest(bytes)])
    expect(slow.bytes).toBe(CHUNK)
    expect(most).toBeLessThanOrEqual(WINDOW + CHUNK + 128)
    expect(await body.settled).toBe(true)
    while (slow.state === 'reading') {
      slow.take()
      await settle(1)
    }
    expect([slow.state, slow.hash]).toEqual(['ended', digest(bytes)])
  })

  test('a slow leader does not slow a joiner', () => {
    const bytes = sampleBytes(3_000_000)
    const { body, source, leader } = setup()
    const slow = new TestReader(leader, { slow: true })
    const fast = new TestReader(body.reader() ?? null)
    expect(sendWhileWanted(source, bytes, 0)).toBe(bytes.length)
    source.end()
    expect([fast.state, fast.hash]).toEqual(['ended', digest(bytes)])
    slow.hurry()
    expect([slow.state, slow.hash]).toEqual(['ended', digest(bytes)])
  })

  // The window was filled for it, to no use: a thousand slow clients of large files would have held a gigabyte.
  test.each([false, true])('one slow reader alone sets the pace, and little is fetched ahead (the write can be read: %s)', (readable) => {
    const bytes = sampleBytes(3_000_000)
    const { body, source, leader } = setup(readable ? {} : { wrap: withoutReadFrom })
    const reader = new TestReader(leader, { slow: true })
    let at = 0
    while (at < bytes.length) {
      at = sendWhileWanted(source, bytes, at)
      expect(at - reader.bytes).toBeLessThan(65_536 + CHUNK)
      expect(body.heldBytes).toBeLessThanOrEqual(readable ? 65_536 + CHUNK + 3 * 128 : WINDOW + CHUNK + 128)
      reader.take()
    }
    source.end()
    while (reader.state === 'reading') reader.take()
    expect(reader.hash).toBe(digest(bytes))
  })

  // Only readers of the window were asked whether they wanted more: one who had caught up from behind it waited for the leader, who had stopped reading.
  test('a reader that fell behind and caught up goes on without the leader', () => {
    const bytes = sampleBytes(3_000_000)
    const all = setup()
    const { source } = all
    const { first, second, at } = stoppedAhead(all, bytes)
    expect(source.paused).toBe(true)
    second.hurry()
    expect(source.paused).toBe(false)
    expect(sendWhileWanted(source, bytes, at)).toBe(bytes.length)
    source.end()
    expect([second.state, second.hash]).toEqual(['ended', digest(bytes)])
    first.hurry()
    expect([first.state, first.hash]).toEqual(['ended', digest(bytes)])
  })

  test('the same where a write cannot be read: the rest comes from the store', async () => {
    const bytes = sampleBytes(3_000_000)
    const all = setup({ wrap: withoutReadFrom })
    const { source } = all
    const { first, second, at } = stoppedAhead(all, bytes)
    second.hurry()
    expect(sendWhileWanted(source, bytes, at)).toBe(bytes.length)
    source.end()
    await until(() => second.state !== 'reading')
    expect([second.state, second.hash]).toEqual(['ended', digest(bytes)])
    first.hurry()
    await until(() => first.state !== 'reading')
    expect([first.state, first.hash]).toEqual(['ended', digest(bytes)])
  })

  test('tiny pieces count as the memory they take', () => {
    const { body, source, leader } = setup()
    const slow = new TestReader(leader, { slow: true })
    let sent = 0
    while (!source.paused) {
      source.push('x')
      sent++
    }
    expect(sent).toBeLessThan(2000)
    expect(body.heldBytes).toBeLessThanOrEqual(WINDOW + 200)
    slow.leave()
  })

  test('empty pieces are nothing', () => {
    const { source, leader } = setup()
    const reader = new TestReader(leader)
    expect(source.push('')).toBe(true)
    source.push('a')
    source.push('')
    source.end()
    expect([reader.state, reader.chunks.length, reader.text]).toEqual(['ended', 1, 'a'])
  })
})
