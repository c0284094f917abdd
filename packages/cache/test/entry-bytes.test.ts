import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { createHeaders, createRequest, headersFromRaw, readAll } from '@proxy/pipeline'
import { expect, test } from 'vitest'
import { sampleMeta } from '../src/conformance.ts'
import { cache, MemoryStore } from '../src/index.ts'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

async function usedBytes(): Promise<number> {
  for (let i = 0; i < 4; i++) {
    collect()
    await new Promise((resolve) => setImmediate(resolve))
  }
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

/** Texts as they come from a socket: each one's own memory. */
const received = (value: string): string => Buffer.from(value).toString('latin1')

/** What V8 takes per entry, before and after the first hits, as a share of what the store counts. */
async function measure(entries: number, bodyBytes: number, moreFields: number): Promise<{ stored: number; hit: number }> {
  const store = new MemoryStore({ maxBytes: 1 << 30 })
  const middleware = cache({ store })
  let asked = 0
  const handler = middleware(async () => {
    asked++
    const raw = [
      ['Date', new Date().toUTCString()],
      ['Content-Type', 'application/json; charset=utf-8'],
      ['Content-Length', String(bodyBytes)],
      ['Cache-Control', 'public, max-age=3600'],
      ['ETag', `"6743c1-${asked.toString(16).padStart(8, '0')}-4f1c9a7be2d8"`],
      ['Last-Modified', 'Thu, 20 Nov 2026 10:11:12 GMT'],
      ...Array.from({ length: moreFields }, (_, i) => [`X-Field-${i}`, `value of field ${i}`])
    ].flatMap(([name, value]) => [name as string, received(value as string)])
    return { status: 200, headers: headersFromRaw(raw), body: Buffer.alloc(bodyBytes, 'x') }
  })
  const ask = async (i: number): Promise<void> => {
    const target = received(`/api/v2/items/${String(i).padStart(8, '0')}/thumbnails/large?width=640`)
    const { body } = await handler(createRequest({ authority: received('images.example.org'), target, headers: createHeaders() }))
    await readAll(body, bodyBytes)
  }
  // The first ones pay for code and shapes.
  for (let i = 0; i < 400; i++) await ask(i % 200)
  await middleware.drain()
  const [usedBefore, countedBefore] = [await usedBytes(), store.stats().bytes]
  for (let i = 1000; i < 1000 + entries; i++) await ask(i)
  await middleware.drain()
  const used = await usedBytes()
  for (let i = 1000; i < 1000 + entries; i++) await ask(i)
  const usedWhenHit = await usedBytes()
  expect(store.stats().entries).toBe(entries + 200)
  expect(asked).toBe(entries + 200)
  const counted = store.stats().bytes - countedBefore
  await store.close()
  return { stored: (used - usedBefore) / counted, hit: (usedWhenHit - usedBefore) / counted }
}

// The metadata was counted as 600 bytes and its text, of the 1600 it took; and with thirty fields as half of what it took.
test.each([
  ['1 KiB', 20_000, 1024, 0],
  ['1 KiB, 12 more fields', 10_000, 1024, 12],
  ['1 KiB, 30 more fields', 5000, 1024, 30],
  ['100 bytes', 20_000, 100, 0],
  ['8 KiB', 10_000, 8192, 0],
  ['40 KiB', 1000, 40_000, 0]
])('what an entry of %s is counted as is what it takes', async (_, entries, bodyBytes, moreFields) => {
  const { stored, hit } = await measure(entries, bodyBytes, moreFields)
  expect(hit).toBeGreaterThan(0.85)
  expect(hit).toBeLessThan(1.15)
  // Before the first hit it takes less, not more.
  expect(stored).toBeLessThan(1.02)
})

test('a long URL is held once, also after it was written again; a closed store holds nothing', async () => {
  const store = new MemoryStore({ maxBytes: 1 << 30 })
  const putAll = async (): Promise<void> => {
    for (let i = 0; i < 5000; i++) {
      const url = received(`https://example.org/${String(i).padStart(3000, 'p')}`)
      const writer = store.put(`default|${url}`, sampleMeta({ url }))
      writer.write(Buffer.from('x'))
      await writer.commit()
    }
  }
  const before = await usedBytes()
  const ratio = async (): Promise<number> => ((await usedBytes()) - before) / counted
  await putAll()
  const counted = store.stats().bytes
  expect(await ratio()).toBeLessThan(1.1)
  await putAll()
  expect(store.stats().entries).toBe(5000)
  expect(await ratio()).toBeLessThan(1.1)
  await store.close()
  expect(await ratio()).toBeLessThan(0.2)
  expect(store.stats().entries).toBe(0)
})
