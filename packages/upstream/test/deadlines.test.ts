import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { DeadlineQueue, Timed } from '../src/deadlines.ts'

class Named extends Timed {
  private readonly due: () => void

  constructor(due: () => void) {
    super()
    this.due = due
  }

  override onDeadline(): void {
    this.due()
  }
}

let log: string[] = []
// The fake clock counts a setImmediate as a millisecond.
const note = (name: string): number => log.push(`${name} ${performance.now() - 1}`)
const named = (name: string): Named => new Named(() => note(name))

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setImmediate', 'performance'], now: 0 })
  log = []
})
afterEach(() => vi.useRealTimers())

test('what was set first comes due first, each at its own time', async () => {
  const queue = new DeadlineQueue(2_000)
  queue.add(named('a'))
  await vi.advanceTimersByTimeAsync(700)
  queue.add(named('b'))
  queue.add(named('c'))
  expect(queue.size).toBe(3)
  await vi.advanceTimersByTimeAsync(1_299)
  expect(log).toEqual([])
  await vi.advanceTimersByTimeAsync(10)
  expect(log).toEqual(['a 2000'])
  await vi.advanceTimersByTimeAsync(1_000)
  expect(log).toEqual(['a 2000', 'b 2700', 'c 2700'])
  expect(queue.size).toBe(0)
})

test('adding again gives the whole time from then on, removing takes it out of first, middle and last place', async () => {
  const queue = new DeadlineQueue(100)
  const [a, b, c, d] = [named('a'), named('b'), named('c'), named('d')] as const
  for (const each of [a, b, c, d]) queue.add(each)
  queue.remove(b)
  queue.remove(d)
  await vi.advanceTimersByTimeAsync(60)
  queue.add(a)
  expect(queue.size).toBe(2)
  await vi.advanceTimersByTimeAsync(60)
  expect(log).toEqual(['c 100'])
  await vi.advanceTimersByTimeAsync(60)
  expect(log).toEqual(['c 100', 'a 160'])
})

test('adding moves from one queue to another', async () => {
  const first = new DeadlineQueue(100)
  const second = new DeadlineQueue(300)
  const a = named('a')
  first.add(a)
  second.add(a)
  expect([first.size, second.size, a.queue === second]).toEqual([0, 1, true])
  await vi.advanceTimersByTimeAsync(1_000)
  expect(log).toEqual(['a 300'])
  expect(a.queue).toBeUndefined()
})

test('a deadline may be set again while it comes due, and another one taken back', async () => {
  const queue = new DeadlineQueue(100)
  const other = named('other')
  let rounds = 0
  const again: Named = new Named(() => {
    note('again')
    if (++rounds === 1) {
      queue.remove(other)
      queue.add(again)
    }
  })
  queue.add(again)
  queue.add(other)
  await vi.advanceTimersByTimeAsync(1_000)
  expect(log).toEqual(['again 100', 'again 201'])
})

test('a queue that ran empty is armed again', async () => {
  const queue = new DeadlineQueue(100)
  const a = named('a')
  queue.add(a)
  queue.remove(a)
  await vi.advanceTimersByTimeAsync(500)
  queue.add(a)
  await vi.advanceTimersByTimeAsync(500)
  expect(log).toEqual(['a 600'])
})

test('0 is no limit', async () => {
  const queue = new DeadlineQueue(0)
  queue.add(named('a'))
  await vi.advanceTimersByTimeAsync(1_000_000)
  expect([log, queue.size, vi.getTimerCount()]).toEqual([[], 1, 0])
})

test('a thousand deadlines share one timer', () => {
  const queue = new DeadlineQueue(100)
  for (let i = 0; i < 1_000; i++) queue.add(named('x'))
  expect(vi.getTimerCount()).toBe(1)
})
