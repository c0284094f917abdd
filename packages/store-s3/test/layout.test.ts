import { GetObjectCommand, ListObjectsV2Command, PutObjectCommand } from '@aws-sdk/client-s3'
import { BLOCK_BYTES, decodeBlock } from '@proxy/cache/blocks'
import { sampleBytes } from '@proxy/cache/conformance'
import { createHeaders, readAll } from '@proxy/pipeline'
import { describe, expect, test } from 'vitest'
import { decodeHead, encodeHead, FIXED_BYTES, headLength } from '../src/frame.ts'
import { keyDigest } from '../src/object-name.ts'
import { bucket, createStore, digest, meta, put, sdkClient, service } from './support.ts'

const at = await service()
const client = sdkClient(at)

async function objectAt(name: string): Promise<{ bytes: Buffer; metadata: Record<string, string> | undefined }> {
  const answer = await client.send(new GetObjectCommand({ Bucket: bucket, Key: name }))
  return { bytes: Buffer.from((await answer.Body?.transformToByteArray()) ?? []), metadata: answer.Metadata }
}

async function namesUnder(prefix: string): Promise<string[]> {
  const { Contents: found = [] } = await client.send(new ListObjectsV2Command({ Bucket: bucket, Prefix: prefix }))
  return found.map((object) => object.Key ?? '')
}

describe('layout', () => {
  test('one object per key, named by its digest, as described: head, metadata, checksummed blocks', async () => {
    const store = await createStore(at, { prefix: 'layout/' })
    const body = sampleBytes(100_000)
    expect(await put(store, 'GET https://example.org/ä?b=1', body)).toBe(true)
    const keyHash = digest(Buffer.from('GET https://example.org/ä?b=1'))
    const name = `layout/${keyHash.slice(0, 2)}/${keyHash}`
    expect(await namesUnder('layout/')).toEqual([name])
    const { bytes, metadata } = await objectAt(name)
    expect(metadata).toEqual({})
    expect(bytes.toString('latin1', 0, 7)).toBe('PXCACHE')
    const headBytes = headLength(bytes) as number
    const head = decodeHead(bytes.subarray(0, headBytes))
    expect(head).toMatchObject({ length: 100_000, keyDigest: keyHash })
    expect(JSON.parse(bytes.toString('utf8', FIXED_BYTES, headBytes))).toMatchObject({ v: 1, url: 'https://example.org/a.png' })
    const version = head?.version as string
    const first = bytes.subarray(headBytes, headBytes + BLOCK_BYTES + 4)
    const last = bytes.subarray(headBytes + BLOCK_BYTES + 4)
    expect(Buffer.concat([decodeBlock(version, 0, first) as Buffer, decodeBlock(version, 1, last) as Buffer])).toEqual(body)
    expect((await store.get('GET https://example.org/ä?b=1'))?.version).toBe(version)
    await store.delete('GET https://example.org/ä?b=1')
    expect(await namesUnder('layout/')).toEqual([])
    await store.close()
  })

  test('objectKey names objects; keys that meet in a name evict each other and never mix', async () => {
    const store = await createStore(at, { prefix: 'readable/', objectKey: (key) => key.replace(/\?.*/, '') })
    expect(await put(store, 'img/a b+ü.png?x=1', Buffer.from('one'))).toBe(true)
    expect(await namesUnder('readable/')).toEqual(['readable/img/a b+ü.png'])
    expect(await store.get('img/a b+ü.png?x=2')).toBeUndefined()
    expect(await store.delete('img/a b+ü.png?x=2', (await store.get('img/a b+ü.png?x=1'))?.version)).toBe(false)
    expect(await put(store, 'img/a b+ü.png?x=2', Buffer.from('two'))).toBe(true)
    expect(await store.get('img/a b+ü.png?x=1')).toBeUndefined()
    const entry = await store.get('img/a b+ü.png?x=2')
    expect(await readAll((await entry?.open()) ?? null, 100)).toEqual(Buffer.from('two'))
    // a touch copies the object onto itself: its name must survive the way into a header
    expect(await store.touch('img/a b+ü.png?x=2', entry?.version ?? '', meta({ status: 203 }))).toBe(true)
    expect((await store.get('img/a b+ü.png?x=2'))?.meta.status).toBe(203)
    await store.close()
  })

  test('a touch leaves the object and writes the difference beside it; too much of it is refused', async () => {
    const store = await createStore(at, { prefix: 'touched/' })
    await put(store, 'k', sampleBytes(200_000))
    const before = await store.get('k', { body: 'none' })
    const [name = ''] = await namesUnder('touched/')
    const { bytes } = await objectAt(name)
    const version = before?.version ?? ''
    expect(await store.touch('k', version, meta({ responseTime: 4_000_000_000_000 }))).toBe(true)
    const after = await objectAt(name)
    expect(after.bytes.equals(bytes)).toBe(true)
    expect(Object.keys(after.metadata ?? {})).toEqual(['proxy-meta'])
    expect((await store.get('k', { body: 'none' }))?.meta.responseTime).toBe(4_000_000_000_000)
    const headers = createHeaders()
    headers['x-noise'] = sampleBytes(3000).toString('base64')
    expect(await store.touch('k', version, meta({ headers }))).toBe(false)
    expect((await store.get('k', { body: 'none' }))?.meta.responseTime).toBe(4_000_000_000_000)
    await store.close()
  })

  test('an overlay left over from another version is ignored', async () => {
    // Servers that do not check the conditions of a copy (radosgw) may hang a touch of the old object on the new one.
    const store = await createStore(at, { prefix: 'race/' })
    await put(store, 'k', Buffer.from('old'))
    const old = await store.get('k')
    expect(await store.touch('k', old?.version ?? '', meta({ status: 500 }))).toBe(true)
    const [name = ''] = await namesUnder('race/')
    const { metadata } = await objectAt(name)
    await put(store, 'k', Buffer.from('new'))
    await client.send(new PutObjectCommand({ Bucket: bucket, Key: name, Body: (await objectAt(name)).bytes, ...(metadata && { Metadata: metadata }) }))
    const entry = await store.get('k')
    expect(entry?.meta.status).toBe(200)
    expect(await readAll((await entry?.open()) ?? null, 100)).toEqual(Buffer.from('new'))
    await store.close()
  })

  test('metadata beyond what one read brings is not stored', async () => {
    const store = await createStore(at)
    const headers = createHeaders()
    headers['x-long'] = 'x'.repeat(20_000)
    expect(await put(store, 'k', Buffer.from('x'), { headers })).toBe(true)
    expect((await store.get('k', { body: 'none' }))?.meta.headers['x-long']).toHaveLength(20_000)
    headers['x-long'] = 'x'.repeat(33_000)
    expect(await put(store, 'k2', Buffer.from('x'), { headers })).toBe(false)
    expect(store.stats().droppedWrites['too-large']).toBe(1)
    await store.close()
  })

  test('an object of another format, or with metadata of another format, is a miss and stays', async () => {
    const store = await createStore(at, { prefix: 'future/', objectKey: (key) => key })
    const head = { version: '00'.repeat(16), length: 0, metaJson: Buffer.from(JSON.stringify({ ...meta(), v: 2 })) }
    const other = encodeHead({ ...head, keyDigest: keyDigest('format') })
    other[7] = 9
    await client.send(new PutObjectCommand({ Bucket: bucket, Key: 'future/format', Body: other }))
    await client.send(new PutObjectCommand({ Bucket: bucket, Key: 'future/meta', Body: encodeHead({ ...head, keyDigest: keyDigest('meta') }) }))
    for (const key of ['format', 'meta']) for (const body of ['all', 'none'] as const) expect(await store.get(key, { body })).toBeUndefined()
    expect(store.stats()).toMatchObject({ broken: 0, misses: 4 })
    await store.close()
    expect(await namesUnder('future/')).toEqual(['future/format', 'future/meta'])
  })

  test('an entry that nobody can use any more is a miss, and removed', async () => {
    const store = await createStore(at, { prefix: 'outlived/' })
    await put(store, 'k', Buffer.from('x'), { keepUntil: Date.now() - 1 })
    expect(await namesUnder('outlived/')).toHaveLength(1)
    expect(await store.get('k')).toBeUndefined()
    await store.close()
    expect(await namesUnder('outlived/')).toEqual([])
  })
})
