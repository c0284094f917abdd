import { createHeaders, createRequest, type Handler } from '@proxy/pipeline'
import { createFakeClock } from '@proxy/testing'
import { expect, test } from 'vitest'
import { cache, MemoryStore } from '../src/index.ts'
import { Uncacheable } from '../src/uncacheable.ts'

/** An origin whose answers are let go one by one. */
function gated(cacheControl: () => string): { handler: Handler; waiting: (() => void)[] } {
  const waiting: (() => void)[] = []
  const handler: Handler = () =>
    new Promise((resolve) =>
      waiting.push(() => {
        const headers = createHeaders()
        headers['cache-control'] = cacheControl()
        resolve({ status: 200, headers, body: Buffer.from('x') })
      })
    )
  return { handler, waiting }
}
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

// Once an answer was seen not to be for sharing, requests for its URL used to queue behind one another's header: a pass-through URL served one client at a time.
test('requests for a URL known to be uncacheable reach the origin side by side, and the URL is looked at anew after a while', async () => {
  const clock = createFakeClock()
  let control = 'no-store'
  const { handler, waiting } = gated(() => control)
  const proxy = cache({ store: new MemoryStore(), clock })(handler)
  const ask = (): Promise<string | string[] | undefined> => proxy(createRequest({ target: '/a' })).then((response) => response.headers['cache-status'])

  const first = ask()
  await turn()
  waiting.shift()?.()
  expect(await first).toBe('proxy; fwd=uri-miss; detail=no-store')

  const side = [ask(), ask(), ask()]
  await turn()
  expect(waiting).toHaveLength(3)
  for (const go of waiting.splice(0)) go()
  expect(await Promise.all(side)).toEqual(Array(3).fill('proxy; fwd=uri-miss; detail=no-store'))

  clock.advance(10_000)
  control = 'max-age=60'
  const joined = [ask(), ask()]
  await turn()
  expect(waiting).toHaveLength(1)
  waiting.shift()?.()
  expect(await Promise.all(joined)).toEqual(['proxy; fwd=uri-miss; stored; ttl=60', 'proxy; fwd=uri-miss; collapsed; ttl=60'])
})

test('remembers a bounded number of keys, and only reasons that lie in the answer', () => {
  const marks = new Uncacheable()
  for (let i = 0; i < 10_001; i++) marks.add(`k${i}`, 'private', 0, false)
  expect(marks.find('k0', 1)?.reason).toBeUndefined()
  expect(marks.find('k1', 1)?.reason).toBe('private')
  marks.add('one client', 'authorization', 0, false)
  expect(marks.find('one client', 1)?.reason).toBeUndefined()
  expect(marks.find('k2', 10_000)?.reason).toBeUndefined()
  const long = 'x'.repeat(2049)
  marks.add(long, 'private', 0, false)
  expect(marks.find(long, 1)?.reason).toBeUndefined()
})
