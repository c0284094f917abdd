import { sampleMeta } from '@proxy/cache/conformance'
import { expect, test } from 'vitest'
import { decodeHead, encodeMeta, metaChecksum, redisKey, versionOf } from '../src/layout.ts'

test('short keys stay readable', () => {
  expect(redisKey('cache:', '/img/1.png')).toBe('cache:/img/1.png')
  expect(redisKey('', 'k'.repeat(200))).toBe('k'.repeat(200))
  expect(redisKey('cache:', 'ä \u{1f600}')).toBe('cache:ä \u{1f600}')
})

test('a long key is hashed behind its readable head', () => {
  const name = redisKey('cache:', `https://example.org/${'x'.repeat(500)}`)
  expect(name.startsWith('cache:https://example.org/xxx')).toBe(true)
  expect(name.length).toBe('cache:'.length + 204)
  expect(redisKey('', `${'x'.repeat(500)}1`)).not.toBe(redisKey('', `${'x'.repeat(500)}2`))
})

test('no key can be named like the hash of another', () => {
  // A client chooses its URL: it must not be able to write or read another URL's entry by asking for the name under which that one lies.
  const victim = redisKey('', 'v'.repeat(300))
  expect(redisKey('', victim)).not.toBe(victim)
})

test('keys that differ in unpaired surrogates alone do not meet', () => {
  const names = ['\ud800', '\ud801', '\ufffd', `${'x'.repeat(159)}\ud83d\ude00${'y'.repeat(60)}`].map((key) => Buffer.from(redisKey('', key)).toString('hex'))
  expect(new Set(names).size).toBe(names.length)
})

test('metadata comes back, its length from the version', () => {
  const meta = sampleMeta({ length: 17 })
  const version = versionOf('id', 42)
  const text = encodeMeta(meta)
  expect(JSON.parse(text)).not.toHaveProperty('length')
  const head = decodeHead(Buffer.from(version), Buffer.from(text), Buffer.from(metaChecksum(version, text)))
  expect(head).toMatchObject({ version: 'id.42', id: 'id', meta: { status: 200, length: 42, url: meta.url } })
  expect(Object.getPrototypeOf(Object.getPrototypeOf((head as { meta: { headers: object } }).meta.headers))).toBe(null)
})

test('a changed digit in version, metadata or checksum is noticed', () => {
  const version = Buffer.from(versionOf('id', 42))
  const text = Buffer.from(encodeMeta(sampleMeta()))
  const checksum = Buffer.from(metaChecksum(version, text))
  expect(decodeHead(version, text, checksum)).toBeTypeOf('object')
  for (const field of [version, text, checksum]) {
    for (let at = 0; at < field.length; at++) {
      field[at] = (field[at] as number) ^ 1
      expect(decodeHead(version, text, checksum)).toBe('broken')
      field[at] = (field[at] as number) ^ 1
    }
  }
  expect(decodeHead(version, null, checksum)).toBe('broken')
  expect(decodeHead(version, text, null)).toBe('broken')
})

test('what others wrote correctly in a format of theirs is unknown, not broken', () => {
  for (const [version, text] of [
    ['id.42', '{"v":2}'],
    ['id.42', 'not JSON'],
    ['id.42', 'null'],
    ['no-length', '{"v":1}'],
    ['id.-1', '{"v":1}']
  ] as const) {
    expect(decodeHead(Buffer.from(version), Buffer.from(text), Buffer.from(metaChecksum(version, text)))).toBe('unknown')
  }
})
