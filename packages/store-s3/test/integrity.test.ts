import { GetObjectCommand, ListObjectsV2Command, PutObjectCommand } from '@aws-sdk/client-s3'
import type { GetOptions } from '@proxy/cache'
import { sampleBytes } from '@proxy/cache/conformance'
import { readAll } from '@proxy/pipeline'
import { describe, expect, test } from 'vitest'
import type { S3Fault, S3Store } from '../src/index.ts'
import { bucket, createStore, put, sdkClient, service } from './support.ts'

const at = await service()
const client = sdkClient(at)

const flip = (bytes: Buffer, offset: number): Buffer => {
  const damaged = Buffer.from(bytes)
  damaged[offset] = (damaged[offset] as number) ^ 1
  return damaged
}

/** What a caller gets: the body, or undefined for a miss of either kind. */
async function read(store: S3Store, key: string, want: GetOptions): Promise<Buffer | undefined> {
  const range = typeof want.body === 'object' ? want.body : undefined
  try {
    const entry = await store.get(key, want)
    return entry && (await readAll(await entry.open(range), 10_000_000))
  } catch (error) {
    expect((error as { code?: string }).code).toMatch(/^(S3_BROKEN|S3_CHANGED|STORE_BODY_BROKEN)$/)
    return undefined
  }
}

async function eventuallyGone(name: string): Promise<void> {
  for (;;) {
    const { KeyCount: left } = await client.send(new ListObjectsV2Command({ Bucket: bucket, Prefix: name }))
    if (left === 0) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

for (const [size, label] of [
  [500, 'small'],
  [60_000, 'one block'],
  [400_000, 'large']
] as const) {
  const damages: Record<string, (bytes: Buffer, other: Buffer) => Buffer> = {
    'cut to nothing': () => Buffer.alloc(0),
    'cut inside the head': (bytes) => bytes.subarray(0, 50),
    'cut inside the metadata': (bytes) => bytes.subarray(0, 100),
    'cut by one byte': (bytes) => bytes.subarray(0, bytes.length - 1),
    'cut in the middle': (bytes) => bytes.subarray(0, bytes.length - size / 2),
    'longer by one byte': (bytes) => Buffer.concat([bytes, Buffer.from('x')]),
    'another file': () => Buffer.from('<html>not found</html>'.repeat(30)),
    'a bit of the head': (bytes) => flip(bytes, 60),
    'a bit of the metadata': (bytes) => flip(bytes, 90),
    'a bit of a checksum': (bytes) => flip(bytes, bytes.length - (size % 65_536) - 2),
    'the last bit': (bytes) => flip(bytes, bytes.length - 1),
    'the blocks of another write': (bytes, other) => Buffer.concat([bytes.subarray(0, bytes.length - size), other.subarray(other.length - size)])
  }
  describe(`a ${label} object that was damaged`, () => {
    for (const [what, damage] of Object.entries(damages)) {
      test(`${what}: no byte of it is delivered as whole, and it heals`, async () => {
        const faults: S3Fault[] = []
        const store = await createStore(at, { objectKey: (key) => key, prefix: `damage/${label}/${what}/`, onFault: (fault) => faults.push(fault) })
        const wants: GetOptions[] = [{ body: 'all' }, { body: 'none' }, { body: { start: size - 10, end: size - 1 } }]
        for (const [i, want] of wants.entries()) {
          const key = `k${i}`
          const name = `damage/${label}/${what}/${key}`
          const body = sampleBytes(size, i)
          expect(await put(store, key, sampleBytes(size, 99))).toBe(true)
          const other = await stored(name)
          expect(await put(store, key, body)).toBe(true)
          await client.send(new PutObjectCommand({ Bucket: bucket, Key: name, Body: damage(await stored(name), other) }))
          const got = await read(store, key, want)
          expect(got).toBeUndefined()
          // An empty object cannot be read in part: it is a miss until it is overwritten.
          if (what !== 'cut to nothing' || want.body === 'all') await eventuallyGone(name)
          expect(await put(store, key, body)).toBe(true)
          const expected = typeof want.body === 'object' ? body.subarray(size - 10) : body
          expect((await read(store, key, want))?.equals(expected)).toBe(true)
        }
        expect(store.stats().broken).toBeGreaterThan(0)
        expect(new Set(faults.map((fault) => fault.kind))).toEqual(new Set(['broken']))
        expect(store.stats()).toMatchObject({ readBreaker: 'closed', writeBreaker: 'closed', readErrors: 0 })
        await store.close()
      })
    }
  })
}

async function stored(name: string): Promise<Buffer> {
  const answer = await client.send(new GetObjectCommand({ Bucket: bucket, Key: name }))
  return Buffer.from((await answer.Body?.transformToByteArray()) ?? [])
}

describe('a block far into a large object that was damaged', () => {
  test('ends the body in an error after the good blocks, and the object is removed', async () => {
    const store = await createStore(at, { objectKey: (key) => key, prefix: 'late/' })
    const body = sampleBytes(3_000_000)
    await put(store, 'k', body)
    await client.send(new PutObjectCommand({ Bucket: bucket, Key: 'late/k', Body: flip(await stored('late/k'), 2_500_000) }))
    const entry = await store.get('k')
    const chunks: Uint8Array[] = []
    const opened = await entry?.open()
    const outcome = await new Promise<string>((resolve) => {
      ;(opened as { start(sink: object): void }).start({
        data: (chunk: Uint8Array) => chunks.push(chunk) > 0,
        end: () => resolve('ended'),
        error: (error: { code: string }) => resolve(error.code)
      })
    })
    expect(outcome).toBe('STORE_BODY_BROKEN')
    const delivered = Buffer.concat(chunks)
    expect(delivered.length).toBeLessThan(2_500_000)
    expect(delivered.equals(body.subarray(0, delivered.length))).toBe(true)
    await eventuallyGone('late/k')
    // Parts beside the damage would have been fine; the object is gone all the same.
    expect(await store.get('k')).toBeUndefined()
    await store.close()
  })

  test('does not hurt a range beside it', async () => {
    const store = await createStore(at, { objectKey: (key) => key, prefix: 'beside/' })
    const body = sampleBytes(3_000_000)
    await put(store, 'k', body)
    await client.send(new PutObjectCommand({ Bucket: bucket, Key: 'beside/k', Body: flip(await stored('beside/k'), 2_500_000) }))
    const range = { start: 1_000_000, end: 1_999_999 }
    expect((await read(store, 'k', { body: range }))?.equals(body.subarray(1_000_000, 2_000_000))).toBe(true)
    await store.close()
  })
})
