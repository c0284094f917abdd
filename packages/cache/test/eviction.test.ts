import { describe, expect, test } from 'vitest'
import { type Eviction, MAX_STEPS, type Resident } from '../src/eviction.ts'
import { Ghosts } from '../src/ghosts.ts'
import { Lru } from '../src/lru.ts'
import { S3Fifo } from '../src/s3-fifo.ts'
import { randomFrom } from './support.ts'

const MAX_BYTES = 1000

function resident(key: string, bytes = 10): Resident {
  return { key, bytes, newer: undefined, older: undefined, mark: 0 }
}

/** The algorithms as plainly as they can be said, over arrays, newest last. */
interface Model {
  hit(key: string): void
  add(key: string, bytes: number): void
  replace(key: string, bytes: number): void
  remove(key: string): void
  evict(): string | undefined
}

class LruModel implements Model {
  private keys: string[] = []
  hit(key: string): void {
    this.remove(key)
    this.keys.push(key)
  }
  add(key: string): void {
    this.keys.push(key)
  }
  replace(key: string): void {
    this.hit(key)
  }
  remove(key: string): void {
    this.keys = this.keys.filter((one) => one !== key)
  }
  evict(): string | undefined {
    return this.keys.shift()
  }
}

class S3FifoModel implements Model {
  private small: { key: string; bytes: number; count: number }[] = []
  private main: { key: string; bytes: number; count: number }[] = []
  private ghosts: string[] = []
  private find(key: string) {
    return [...this.small, ...this.main].find((entry) => entry.key === key) as { key: string; bytes: number; count: number }
  }
  private get length(): number {
    return this.small.length + this.main.length
  }
  hit(key: string): void {
    const entry = this.find(key)
    entry.count = Math.min(3, entry.count + 1)
  }
  add(key: string, bytes: number): void {
    const known = this.length > 0 && this.ghosts.slice(-this.length).includes(key)
    // A forgotten ghost goes on counting: the table goes by when it was, not by how many came after it.
    this.ghosts = this.ghosts.map((one) => (one === key ? '' : one))
    ;(known ? this.main : this.small).push({ key, bytes, count: 0 })
  }
  replace(key: string, bytes: number): void {
    this.find(key).bytes = bytes
  }
  remove(key: string): void {
    this.small = this.small.filter((entry) => entry.key !== key)
    this.main = this.main.filter((entry) => entry.key !== key)
  }
  evict(): string | undefined {
    for (;;) {
      const fromSmall = this.small.reduce((sum, { bytes }) => sum + bytes, 0) > MAX_BYTES / 10 || this.main.length === 0
      const entry = (fromSmall ? this.small : this.main).shift()
      if (entry === undefined) return undefined
      if (entry.count === 0) {
        if (fromSmall) this.ghosts.push(entry.key)
        return entry.key
      }
      entry.count = fromSmall ? 0 : entry.count - 1
      this.main.push(entry)
    }
  }
}

describe.each([
  ['lru', () => new Lru(), () => new LruModel()],
  ['s3-fifo', () => new S3Fifo(MAX_BYTES), () => new S3FifoModel()]
] as [string, () => Eviction, () => Model][])('%s', (_, create, createModel) => {
  test('evicts in the order of its model, whatever happens in between', () => {
    const runs = Number(process.env.CACHE_FUZZ_RUNS ?? 30)
    for (let seed = 1; seed <= runs; seed++) {
      const random = randomFrom(seed)
      const pick = (n: number): number => Math.floor(random() * n)
      const [policy, model, there] = [create(), createModel(), new Map<string, Resident>()]
      for (let step = 0; step < 2000; step++) {
        const key = `k${pick(60)}`
        const entry = there.get(key)
        const action = pick(10)
        if (entry === undefined) {
          const added = resident(key, 1 + pick(40))
          there.set(key, added)
          policy.add(added)
          model.add(key, added.bytes)
        } else if (action < 5) {
          policy.hit(entry)
          model.hit(key)
        } else if (action === 5) {
          const after = resident(key, 1 + pick(40))
          there.set(key, after)
          policy.replace(entry, after)
          model.replace(key, after.bytes)
          expect([entry.newer, entry.older]).toEqual([undefined, undefined])
        } else if (action === 6) {
          there.delete(key)
          policy.remove(entry)
          model.remove(key)
          expect([entry.newer, entry.older]).toEqual([undefined, undefined])
        }
        while ([...there.values()].reduce((sum, { bytes }) => sum + bytes, 0) > MAX_BYTES * (0.8 + random() / 5)) {
          const out = policy.evict() as Resident
          expect(out.key, `seed ${seed}, step ${step}`).toBe(model.evict())
          expect(there.get(out.key)).toBe(out)
          // What has gone must not keep alive what was beside it.
          expect([out.newer, out.older]).toEqual([undefined, undefined])
          there.delete(out.key)
        }
      }
      for (let left = there.size; left > 0; left--) expect(policy.evict()?.key).toBe(model.evict())
      expect(policy.evict()).toBeUndefined()
    }
  })
})

test('s3-fifo: one eviction looks at a bounded number of entries, all of them wanted or not', () => {
  const policy = new S3Fifo(100_000)
  const entries = Array.from({ length: 10_000 }, (_, i) => resident(`k${i}`))
  for (const entry of entries) policy.add(entry)
  for (const entry of entries) policy.hit(entry)
  expect(policy.evict()?.key).toBe(`k${MAX_STEPS}`)
  expect(entries.filter(({ mark }) => mark !== 1).length).toBe(MAX_STEPS)
})

describe('ghosts', () => {
  test('of the last so many keys; taken once', () => {
    const ghosts = new Ghosts()
    for (let i = 0; i < 100; i++) ghosts.add(`k${i}`, 10)
    const found = Array.from({ length: 100 }, (_, i) => `k${i}`).filter((key) => ghosts.take(key, 10))
    expect(found).toEqual(Array.from({ length: 10 }, (_, i) => `k${i + 90}`))
    expect(ghosts.take('k99', 10)).toBe(false)
    expect(ghosts.take('never', 10)).toBe(false)
  })

  test('the table grows with what it is asked to remember, and with nothing else', () => {
    const ghosts = new Ghosts()
    for (let i = 0; i < 100_000; i++) ghosts.add(`k${i}`, 100)
    expect(ghosts.slots).toBe(256)
    for (let i = 0; i < 100_000; i++) ghosts.add(`m${i}`, Math.min(i, 20_000))
    expect(ghosts.slots).toBe(32_768)
    // A crowded bucket forgets some before their time.
    let found = 0
    for (let i = 80_000; i < 100_000; i++) if (ghosts.take(`m${i}`, 20_000)) found++
    expect(found).toBeGreaterThan(17_000)
    let false_ = 0
    for (let i = 0; i < 100_000; i++) if (ghosts.take(`other${i}`, 20_000)) false_++
    expect(false_).toBeLessThan(20)
  })

  test('a key that has no letters, and one that is long', () => {
    const ghosts = new Ghosts()
    for (const key of ['', 'x'.repeat(100_000)]) {
      expect(ghosts.take(key, 10)).toBe(false)
      ghosts.add(key, 10)
      expect(ghosts.take(key, 10)).toBe(true)
    }
  })
})
