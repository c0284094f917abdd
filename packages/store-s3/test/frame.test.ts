import { randomBytes } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { decodeHead, encodeHead, FIXED_BYTES, HEAD_BYTES, headLength, MAX_META_BYTES, type ObjectHead, objectSize } from '../src/frame.ts'
import { keyDigest } from '../src/object-name.ts'
import { decodeOverlay, encodeOverlay } from '../src/overlay.ts'

const sample = (changes: Partial<ObjectHead> = {}): ObjectHead => ({
  version: randomBytes(16).toString('hex'),
  keyDigest: keyDigest('a key'),
  length: 5_000_000_000,
  metaJson: Buffer.from('{"v":1}'),
  ...changes
})

describe('the head of an object', () => {
  test('comes back as it was written', () => {
    for (const head of [sample(), sample({ length: 0, metaJson: Buffer.alloc(MAX_META_BYTES, 32) })]) {
      const bytes = encodeHead(head)
      expect(headLength(bytes)).toBe(FIXED_BYTES + head.metaJson.byteLength)
      expect(decodeHead(bytes)).toEqual(head)
    }
  })

  test('says how long the object is: head, body, four bytes per block of 64 KiB', () => {
    const metaJson = Buffer.alloc(100)
    expect(objectSize(sample({ metaJson, length: 0 }))).toBe(172)
    expect(objectSize(sample({ metaJson, length: 1 }))).toBe(172 + 1 + 4)
    expect(objectSize(sample({ metaJson, length: 65_536 }))).toBe(172 + 65_536 + 4)
    expect(objectSize(sample({ metaJson, length: 65_537 }))).toBe(172 + 65_537 + 8)
  })

  test('with any bit changed is broken or of an unknown format', () => {
    const bytes = encodeHead(sample())
    for (let at = 0; at < bytes.byteLength * 8; at++) {
      const damaged = Buffer.from(bytes)
      damaged[at >> 3] = (damaged[at >> 3] as number) ^ (1 << (at & 7))
      const length = headLength(damaged)
      if (length === bytes.byteLength) expect(decodeHead(damaged), `bit ${at}`).toBeUndefined()
    }
  })

  test('of another kind is told at once', () => {
    expect(headLength(Buffer.alloc(FIXED_BYTES))).toBe('broken')
    const future = encodeHead(sample())
    future[7] = 2
    expect(headLength(future)).toBe('unknown')
    const endless = encodeHead(sample())
    endless.writeUInt32BE(HEAD_BYTES, 64)
    expect(headLength(endless)).toBe('broken')
  })
})

describe('the overlay of a touch', () => {
  const version = randomBytes(16).toString('hex')
  const original = Buffer.from(JSON.stringify({ headers: { csp: randomBytes(3000).toString('hex') }, responseTime: 1 }))
  const changed = Buffer.from(original.toString().replace('"responseTime":1', '"responseTime":2'))

  test('comes back, and takes room for the difference only', () => {
    const text = encodeOverlay(version, original, changed) as string
    expect(decodeOverlay(version, original, text)).toEqual(changed)
    expect(text.length).toBeLessThan(200)
    expect(text).toMatch(/^[\w-]+$/)
  })

  test('that does not fit is not made', () => {
    expect(encodeOverlay(version, original, Buffer.from(randomBytes(3000).toString('hex')))).toBeUndefined()
    expect(encodeOverlay(version, original, Buffer.alloc(MAX_META_BYTES + 1))).toBeUndefined()
  })

  test('is ignored when broken, or made for another version or other metadata', () => {
    const text = encodeOverlay(version, original, changed) as string
    expect(decodeOverlay('another', original, text)).toBeUndefined()
    expect(decodeOverlay(version, Buffer.from('{}'), text)).toBeUndefined()
    for (const broken of ['', 'AAAA', '%%%', text.slice(0, -4), `A${text.slice(1)}`]) expect(decodeOverlay(version, original, broken)).toBeUndefined()
  })
})
