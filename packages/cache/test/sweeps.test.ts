import { expect, test } from 'vitest'
import { sampleMeta } from '../src/conformance.ts'
import { Sweeps } from '../src/purging.ts'
import type { StoredMeta } from '../src/store.ts'

const entries = ['a', 'b', 'c'].map((url): StoredMeta => ({ ...sampleMeta({ url }), length: 1 }))

/** Walks that last until they are let go. */
function held() {
  const removed: string[][] = []
  const waiting: PromiseWithResolvers<void>[] = []
  const sweeps = new Sweeps(async (find) => {
    const walk = Promise.withResolvers<void>()
    waiting.push(walk)
    const gone: string[] = []
    removed.push(gone)
    for (const meta of entries) {
      const found = find(meta)
      if (found?.remove) gone.push(meta.url)
      found?.counted()
    }
    await walk.promise
  })
  return { sweeps, removed, waiting }
}

const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve))
const is =
  (...urls: string[]) =>
  ({ url }: StoredMeta): boolean =>
    urls.includes(url)

test('those who ask in one turn, or while a walk goes on, share a walk; each hears of its own', async () => {
  const { sweeps, removed, waiting } = held()
  const first = [sweeps.sweep(is('a'), false), sweeps.sweep(is('a', 'b'), true), sweeps.sweep(is('x'), false)]
  await turn()
  const second = Array.from({ length: 50 }, (_, i) => sweeps.sweep(is('a', 'b', 'c'), i > 0))
  await turn()
  expect(waiting).toHaveLength(1)
  waiting[0]?.resolve()
  expect(await Promise.all(first)).toEqual([1, 2, 0])
  await turn()
  waiting[1]?.resolve()
  expect(await Promise.all(second)).toEqual(Array.from({ length: 50 }, () => 3))
  expect(removed).toEqual([['a'], ['a', 'b', 'c']])
})

test('a walk that fails is told to those who asked for it, and the next one goes on', async () => {
  const { sweeps, waiting } = held()
  const first = sweeps.sweep(is('a'), false)
  await turn()
  const second = sweeps.sweep(is('b'), false)
  waiting[0]?.reject(new Error('away'))
  await expect(first).rejects.toThrow('away')
  await turn()
  waiting[1]?.resolve()
  expect(await second).toBe(1)
})
