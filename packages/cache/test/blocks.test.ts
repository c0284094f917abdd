import { ProxyError, readAll } from '@proxy/pipeline'
import { describe, expect, test } from 'vitest'
import { BLOCK_BYTES, BLOCK_OVERHEAD_BYTES, BlockEncoder, decodeBlock, framedLength, framedRange, readBlocks } from '../src/blocks.ts'
import { sampleBytes } from '../src/conformance.ts'
import { digest, PushSource, randomFrom, TestReader } from './support.ts'

const MAX = 4 << 20
const FRAME = BLOCK_BYTES + BLOCK_OVERHEAD_BYTES

function encode(bytes: Buffer, version = 'v1', chunkBytes = 10_007): Buffer {
  const encoder = new BlockEncoder(version)
  const frames: Buffer[] = []
  for (let at = 0; at < bytes.length; at += chunkBytes) frames.push(...encoder.push(bytes.subarray(at, at + chunkBytes)))
  const last = encoder.flush()
  if (last !== undefined) frames.push(last)
  expect(encoder.length).toBe(bytes.length)
  return Buffer.concat(frames)
}

/** Reads framed bytes that arrive in pieces. */
function read(framed: Buffer, options: { version?: string; length: number; range?: { start: number; end: number } }, chunkBytes = 7919): { reader: TestReader; broken: number } {
  const result = { broken: 0 }
  const source = new PushSource()
  const { version = 'v1', ...rest } = options
  const reader = new TestReader(readBlocks(source, { version, ...rest, onBroken: () => result.broken++ }))
  for (let at = 0; at < framed.length && !source.aborted; at += chunkBytes) source.push(framed.subarray(at, at + chunkBytes))
  source.end()
  return { reader, broken: result.broken }
}

const sizes = [0, 1, 100, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, 3 * BLOCK_BYTES + 12_345]

test.each(sizes)('%d bytes come back, however they are cut', async (size) => {
  const bytes = sampleBytes(size)
  const framed = encode(bytes)
  expect(framed.length).toBe(framedLength(size))
  for (const chunkBytes of [1, 3, BLOCK_BYTES, FRAME, FRAME + 1, MAX]) {
    if (size / chunkBytes > 100_000) continue
    expect(encode(bytes, 'v1', chunkBytes).equals(framed)).toBe(true)
    const { reader, broken } = read(framed, { length: size }, chunkBytes)
    expect([reader.state, broken]).toEqual(['ended', 0])
    expect(reader.hash).toBe(digest(bytes))
  }
  expect(digest(await readAll(readBlocks(framed, { version: 'v1', length: size }), MAX))).toBe(digest(bytes))
})

test('a block can be verified alone', () => {
  const bytes = sampleBytes(BLOCK_BYTES + 10)
  const framed = encode(bytes)
  const last = framed.subarray(FRAME)
  expect(decodeBlock('v1', 1, last)?.equals(bytes.subarray(BLOCK_BYTES))).toBe(true)
  expect(decodeBlock('v1', 0, last)).toBeUndefined()
  expect(decodeBlock('v2', 1, last)).toBeUndefined()
  expect(decodeBlock('v1', 1, last.subarray(0, 4))).toBeUndefined()
  expect(decodeBlock('v1', 1, Buffer.alloc(0))).toBeUndefined()
})

test('ranges are read from their blocks alone', () => {
  const size = 3 * BLOCK_BYTES + 500
  const bytes = sampleBytes(size)
  const framed = encode(bytes)
  const edges = [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, 3 * BLOCK_BYTES, size - 1]
  for (const start of edges) {
    for (const end of edges) {
      if (end < start) continue
      const part = framedRange({ start, end }, size)
      expect(part.firstBlock).toBe(Math.floor(start / BLOCK_BYTES))
      const { reader } = read(framed.subarray(part.start, part.end + 1), { length: size, range: { start, end } })
      expect([reader.state, reader.hash]).toEqual(['ended', digest(bytes.subarray(start, end + 1))])
    }
  }
  const beyond = framedRange({ start: 5, end: size + 100 }, size)
  expect(beyond.end).toBe(framed.length - 1)
  expect(read(framed, { length: size, range: { start: 5, end: size + 100 } }).reader.hash).toBe(digest(bytes.subarray(5)))
})

describe('whatever happens to the bytes, what is delivered is a true beginning of them, then an error', () => {
  const size = 2 * BLOCK_BYTES + 5000
  const bytes = sampleBytes(size)
  const framed = encode(bytes)

  const expectBroken = (damaged: Buffer, options: Parameters<typeof read>[1] = { length: size }): void => {
    const { reader, broken } = read(damaged, options)
    expect(reader.state).toBe('failed')
    expect(reader.failure).toBeInstanceOf(ProxyError)
    expect(reader.failure?.code).toBe('STORE_BODY_BROKEN')
    expect(broken).toBe(1)
    const start = options.range?.start ?? 0
    expect(Buffer.concat(reader.chunks).equals(bytes.subarray(start, start + reader.bytes))).toBe(true)
    expect(reader.bytes % BLOCK_BYTES === 0 || start > 0 || reader.bytes === size).toBe(true)
  }

  test('one bit anywhere', () => {
    const random = randomFrom(3)
    const places = [0, 3, 4, 5, FRAME - 1, FRAME, FRAME + 3, FRAME + 4, 2 * FRAME, 2 * FRAME + 4, framed.length - 1]
    for (let i = 0; i < 200; i++) places.push(Math.floor(random() * framed.length))
    for (const at of places) {
      const damaged = Buffer.from(framed)
      damaged[at] = (damaged[at] as number) ^ (1 << Math.floor(random() * 8))
      expectBroken(damaged)
    }
  })

  test('one bit in a range', () => {
    const range = { start: BLOCK_BYTES + 100, end: BLOCK_BYTES + 200 }
    const part = framedRange(range, size)
    const damaged = Buffer.from(framed.subarray(part.start, part.end + 1))
    // Not in the bytes wanted, but in their block: what cannot be verified is not handed out.
    damaged[60_000] = (damaged[60_000] as number) ^ 1
    expectBroken(damaged, { length: size, range })
  })

  test('cut off anywhere', () => {
    for (const at of [0, 1, 4, 5, 1000, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME, 2 * FRAME + 3, framed.length - 1]) expectBroken(framed.subarray(0, at))
  })

  test('more than there should be', () => {
    expectBroken(Buffer.concat([framed, Buffer.from('x')]))
    expectBroken(Buffer.from('x'), { length: 0 })
  })

  test('blocks swapped, repeated, left out, or from another version', () => {
    const [one, two, three] = [framed.subarray(0, FRAME), framed.subarray(FRAME, 2 * FRAME), framed.subarray(2 * FRAME)]
    const other = encode(bytes, 'v2')
    expectBroken(Buffer.concat([two, one, three]))
    expectBroken(Buffer.concat([one, one, three]))
    expectBroken(Buffer.concat([one, three]))
    expectBroken(Buffer.concat([one, other.subarray(FRAME, 2 * FRAME), three]))
    expectBroken(framed, { length: size, version: 'v2' })
    expectBroken(framed, { length: size - 1 })
    expectBroken(framed, { length: size + 1 })
  })

  test('equal blocks in other places do not pass for each other', () => {
    const same = Buffer.alloc(2 * BLOCK_BYTES, 7)
    const frames = encode(same)
    const [one, two] = [frames.subarray(0, FRAME), frames.subarray(FRAME)]
    expect(one.equals(two)).toBe(false)
    const { reader } = read(Buffer.concat([two, one]), { length: same.length })
    expect(reader.state).toBe('failed')
  })

  test('an error of what lies below is passed on', () => {
    const source = new PushSource()
    const reader = new TestReader(readBlocks(source, { version: 'v1', length: size }))
    source.push(framed.subarray(0, FRAME + 5))
    source.fail()
    expect([reader.state, reader.failure?.code, reader.bytes]).toEqual(['failed', 'BODY_BROKEN', BLOCK_BYTES])
  })
})

test('reads no faster than its reader, and stops when that leaves', () => {
  const framed = encode(sampleBytes(3 * BLOCK_BYTES))
  const source = new PushSource()
  const reader = new TestReader(readBlocks(source, { version: 'v1', length: 3 * BLOCK_BYTES }), { slow: true })
  expect(source.push(framed.subarray(0, 100))).toBe(true)
  expect(source.push(framed.subarray(100, FRAME))).toBe(false)
  reader.take()
  expect(source.paused).toBe(false)
  reader.leave()
  expect(source.aborted).toBe(true)
})

test('a body that nobody reads is given up below too', () => {
  const source = new PushSource()
  readBlocks(source, { version: 'v1', length: 10 }).discard()
  expect(source.discarded).toBe(true)
})
