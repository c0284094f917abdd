import { readAll, WholeBody } from '@proxy/pipeline'
import { describe, expect, test } from 'vitest'
import { sampleBytes } from '../src/conformance.ts'
import { SegmentBuffer, SegmentsBody, sliceBody } from '../src/segments.ts'
import { digest, randomFrom, TestReader } from './support.ts'

const MAX = 16 << 20

function filled(bytes: Buffer, chunkBytes: number, declared?: number): SegmentBuffer {
  const buffer = new SegmentBuffer(declared)
  for (let at = 0; at < bytes.length; at += chunkBytes) buffer.append(bytes.subarray(at, at + chunkBytes))
  return buffer
}

test.each([0, 1, 4096, 4097, 16_384, 16_385, 100_000, 1 << 20, (1 << 20) + 1, 2_500_000])('%d bytes come out as they went in, whole and in part', async (length) => {
  const bytes = sampleBytes(length)
  for (const declared of [undefined, length]) {
    for (const chunkBytes of [997, 65_536, Math.max(1, length)]) {
      const body = filled(bytes, chunkBytes, declared).complete()
      expect(digest(await readAll(body, MAX))).toBe(digest(bytes))
      // Any number of times.
      expect(digest(await readAll(body, MAX))).toBe(digest(bytes))
      if (length === 0) continue
      for (const range of [
        { start: 0, end: 0 },
        { start: length - 1, end: length - 1 },
        { start: Math.floor(length / 3), end: Math.floor((2 * length) / 3) }
      ]) {
        expect(digest(await readAll(sliceBody(body, range), MAX))).toBe(digest(bytes.subarray(range.start, range.end + 1)))
      }
    }
  }
})

test('the form that is kept: text when small, one buffer when moderate, pieces when large', () => {
  const small = filled(sampleBytes(16_384), 1000).complete() as WholeBody
  expect(small.latin1?.length).toBe(16_384)
  const moderate = filled(sampleBytes(500_000), 1000).complete() as WholeBody
  expect(moderate).toBeInstanceOf(WholeBody)
  // In memory of its own and of its own size: a slice would keep alive what it was cut from.
  expect(moderate.bytes?.buffer.byteLength).toBe(500_000)
  const large = filled(sampleBytes(1_500_000), 1000).complete()
  expect(large).toBeInstanceOf(SegmentsBody)
  let held = 0
  const buffers = new Set<ArrayBufferLike>()
  const reader = new TestReader(large)
  for (const chunk of reader.chunks) buffers.add(chunk.buffer)
  for (const one of buffers) held += one.byteLength
  expect(held).toBe(1_500_000)
})

test('what an append costs is known before', () => {
  const random = randomFrom(7)
  for (const declared of [undefined, 50_000, 800_000, 3_000_000]) {
    const buffer = new SegmentBuffer(declared)
    let allocated = 0
    while (buffer.length < (declared ?? 700_000)) {
      const chunk = Buffer.alloc(Math.min(1 + Math.floor(random() * 40_000), (declared ?? 700_000) - buffer.length))
      allocated += buffer.costOf(chunk.byteLength)
      buffer.append(chunk)
      expect(allocated).toBeGreaterThanOrEqual(buffer.length)
      // Never more than one piece ahead.
      expect(allocated - buffer.length).toBeLessThanOrEqual(Math.max(256 * 1024, declared !== undefined && declared <= 1 << 20 ? declared : 0))
    }
  }
})

describe('reading while it is written', () => {
  test('from any offset, before and after the end', () => {
    const bytes = sampleBytes(400_000)
    const buffer = new SegmentBuffer(undefined)
    buffer.append(bytes.subarray(0, 100_000))
    const readers = [0, 50_000, 100_000, 399_999].map((offset) => ({ offset, reader: new TestReader(buffer.readFrom(offset)) }))
    for (let at = 100_000; at < bytes.length; at += 3333) buffer.append(bytes.subarray(at, at + 3333))
    expect(readers.map(({ reader }) => reader.state)).toEqual(['reading', 'reading', 'reading', 'reading'])
    buffer.complete()
    readers.push({ offset: 123, reader: new TestReader(buffer.readFrom(123)) })
    for (const { offset, reader } of readers) {
      expect(reader.state).toBe('ended')
      expect(reader.hash).toBe(digest(bytes.subarray(offset)))
    }
  })

  test('a slow reader takes piece by piece, also after the end', () => {
    const bytes = sampleBytes(700_000)
    const buffer = filled(bytes, 10_000)
    const reader = new TestReader(buffer.readFrom(0), { slow: true })
    expect(reader.chunks.length).toBe(1)
    buffer.complete()
    while (reader.state === 'reading') reader.take()
    expect(reader.hash).toBe(digest(bytes))
  })

  test('a reader who leaves is forgotten, and one who comes too late is told', () => {
    const buffer = filled(sampleBytes(1000), 100)
    const gone = new TestReader(buffer.readFrom(0))
    gone.leave()
    const cut = new TestReader(buffer.readFrom(0))
    buffer.append(Buffer.from('x'))
    expect(gone.bytes).toBe(1000)
    buffer.fail()
    expect(cut.state).toBe('failed')
    expect(cut.failure?.code).toBe('STORE_WRITE_ABORTED')
    expect(new TestReader(buffer.readFrom(0)).state).toBe('failed')
  })
})
