import { randomInt } from 'node:crypto'
import { appendFile, copyFile, mkdir, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { PurgeRecord } from '@proxy/cache'
import { purgeLogConformance, sampleMeta } from '@proxy/cache/conformance'
import { createFakeClock } from '@proxy/testing'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { type DiskFault, DiskPurgeLog, type DiskPurgeLogOptions } from '../src/index.ts'
import { DiskFile } from '../src/io.ts'
import { Owner, placeKnown } from '../src/owner.ts'
import { encodeLine } from '../src/purge-lines.ts'
import { startWorker } from './child-process.ts'
import { folder, MIB, mountTmpfs, openStore } from './support.ts'

const patient = { writeTimeoutMs: 20_000, closeTimeoutMs: 20_000 }
const inTime = { timeout: 20_000, interval: 5 }

async function open(directory: string, options: Partial<DiskPurgeLogOptions> = {}): Promise<DiskPurgeLog> {
  const log = new DiskPurgeLog({ ...patient, directory, ...options })
  onTestFinished(() => log.close())
  await log.prepare()
  return log
}

const tag = (value: string, at = 1000): PurgeRecord => ({ scope: 'tag', value, at, soft: false })
const hardAt = (log: DiskPurgeLog, value: string): number => log.verdict(sampleMeta({ tags: [value] })).hardAt
const journalsIn = async (directory: string): Promise<string[]> => (await readdir(join(directory, 'purges'))).map((name) => join(directory, 'purges', name))

describe('conformance', () => {
  purgeLogConformance({
    test,
    create: async (options) => {
      const directory = await folder()
      const opened = async (): Promise<{ log: DiskPurgeLog; close: () => Promise<void> }> => {
        const log = await open(directory, options)
        return { log, close: () => log.close() }
      }
      return { ...(await opened()), again: opened }
    }
  })
})

describe('a restart', () => {
  test('keeps what was purged, and what logs that are gone left becomes one journal', async () => {
    const directory = await folder()
    for (let i = 0; i < 4; i++) {
      const log = await open(directory)
      for (let before = 0; before < i; before++) expect(hardAt(log, `t${before}`)).toBe(before)
      expect(hardAt(log, `t${i}`)).toBe(Number.NEGATIVE_INFINITY)
      await log.add(tag(`t${i}`, i))
      await log.close()
    }
    const last = await open(directory, { pollMs: 10 })
    await vi.waitUntil(async () => (await journalsIn(directory)).length === 1, inTime)
    expect([0, 1, 2, 3].map((i) => hardAt(last, `t${i}`))).toEqual([0, 1, 2, 3])
  })

  test('what is kept is on the device: file and folder are flushed before add resolves', async () => {
    const log = await open(await folder())
    const sync = vi.spyOn(DiskFile.prototype, 'sync')
    onTestFinished(() => sync.mockRestore())
    await log.add(tag('a'))
    // The new file, the folder it is in, and the one above.
    expect(sync).toHaveBeenCalledTimes(3)
    await Promise.all(['b', 'c', 'd'].map((value) => log.add(tag(value))))
    expect(sync.mock.calls.length, 'those that come together are flushed together').toBeLessThanOrEqual(5)
    expect(sync.mock.calls.length).toBeGreaterThan(3)
  })

  test('kill -9 at any point loses nothing that was kept', { timeout: 120_000 }, async () => {
    const directory = await folder()
    const kept = new Map<string, number>()
    for (let round = 0; round < 8; round++) {
      const worker = startWorker('./child-purges.ts', [directory, `r${round}`, '0', '100000'])
      await worker.line()
      expect(worker.lines[0]).toBe('ready')
      await delay(randomInt(5, 200))
      await worker.kill()
      for (const line of worker.lines.slice(1)) {
        const [i, at] = line.split(' ')
        kept.set(`r${round}-${i as string}`, Number(at))
      }
    }
    const log = await open(directory, { maxRecords: 1e6 })
    for (const [value, at] of kept) expect(hardAt(log, value)).toBe(at)
    expect(kept.size).toBeGreaterThan(50)
  })

  test('the last line may be torn anywhere: what was kept before it holds, and what comes after', async () => {
    const directory = await folder()
    const log = await open(directory)
    for (let i = 0; i < 3; i++) await log.add(tag(`t${i}`))
    await log.close()
    const [journal = ''] = await journalsIn(directory)
    const whole = await readFile(journal)
    const lastLine = whole.subarray(0, -1).lastIndexOf(10) + 1
    for (let end = lastLine; end < whole.length; end++) {
      const torn = await folder()
      await mkdir(join(torn, 'purges'))
      await writeFile(journal.replace(directory, torn), whole.subarray(0, end))
      const faults: DiskFault[] = []
      const first = await open(torn, { onFault: (fault) => faults.push(fault) })
      expect([hardAt(first, 't0'), hardAt(first, 't1'), hardAt(first, 't2')]).toEqual([1000, 1000, Number.NEGATIVE_INFINITY])
      await first.add(tag('new'))
      await first.close()
      const second = await open(torn)
      expect([hardAt(second, 't1'), hardAt(second, 'new'), faults.length]).toEqual([1000, 1000, 0])
      await second.close()
    }
  })

  test('damage to what was kept purges everything up to its time, and is told', async () => {
    const directory = await folder()
    const log = await open(directory)
    for (let i = 0; i < 3; i++) await log.add(tag(`t${i}`))
    await log.close()
    const [journal = ''] = await journalsIn(directory)
    const bytes = await readFile(journal)
    bytes[20] = (bytes[20] as number) ^ 1
    await writeFile(journal, bytes)
    const now = Math.ceil((await stat(journal)).mtimeMs)
    const faults: DiskFault[] = []
    const other = await open(directory, { onFault: (fault) => faults.push(fault) })
    expect(hardAt(other, 'anything')).toBe(now)
    expect(faults.map(({ side, kind }) => `${side} ${kind}`)).toEqual(['purges broken'])
  })

  test('garbage, also without an end of line, is passed over', async () => {
    const directory = await folder()
    const journal = join(directory, 'purges', '01234567.1.0.0123456789ab.1.purges')
    await mkdir(join(directory, 'purges'))
    await writeFile(journal, Buffer.alloc(3 * MIB, 'x'))
    await writeFile(join(directory, 'purges', 'notes.txt'), 'not ours')
    const log = await open(directory, { pollMs: 10 })
    expect(hardAt(log, 't')).toBe(Number.NEGATIVE_INFINITY)
    await appendFile(journal, `\n${encodeLine(tag('t', 5))}`)
    await vi.waitUntil(() => hardAt(log, 't') > 5, inTime)
    expect(await readFile(join(directory, 'purges', 'notes.txt'), 'utf8')).toBe('not ours')
  })
})

describe('several processes on one directory', () => {
  test('each hears of what the others purge', async () => {
    const directory = await folder()
    const [one, two] = [await open(directory, { pollMs: 10 }), await open(directory, { pollMs: 10 })]
    const { revision } = two
    await one.add(tag('a'))
    await vi.waitUntil(() => hardAt(two, 'a') === 1000, inTime)
    expect(two.revision).not.toBe(revision)
    await two.add(tag('b'))
    await vi.waitUntil(() => hardAt(one, 'b') === 1000, inTime)
    const worker = startWorker('./child-purges.ts', [directory, 'child', '5', '1000'])
    expect(await worker.ended()).toBe(0)
    await vi.waitUntil(() => hardAt(one, 'child-4') > 1000 && hardAt(two, 'child-0') > 1000, inTime)
  })

  test('three of them that write their journals anew all the time: too much may be purged, never too little', { timeout: 120_000 }, async () => {
    const directory = await folder()
    const workers = ['a', 'b', 'c'].map((name) => startWorker('./child-purges.ts', [directory, name, '300', '40']))
    expect(await Promise.all(workers.map((worker) => worker.ended()))).toEqual([0, 0, 0])
    const log = await open(directory, { maxRecords: 40 })
    for (const [i, worker] of workers.entries()) {
      expect(worker.lines).toHaveLength(301)
      for (const line of worker.lines.slice(1)) {
        const [number, at] = line.split(' ')
        expect(hardAt(log, `${'abc'[i] as string}-${number as string}`)).toBeGreaterThanOrEqual(Number(at))
      }
    }
  })

  // A log of another machine, or thread, that has purged nothing for an hour looks like one that is gone.
  test('a log that is taken for gone loses nothing', async () => {
    const directory = await folder()
    const one = await open(directory)
    await one.add(tag('a'))
    const [journal = ''] = await journalsIn(directory)
    const elsewhere = join(directory, 'purges', '01234567.1.0.0123456789ab.1.purges')
    await copyFile(journal, elsewhere)
    await rm(journal)
    const longAgo = Date.now() / 1000 - 2 * 60 * 60
    await utimes(elsewhere, longAgo, longAgo)
    const two = await open(directory, { pollMs: 10 })
    await vi.waitUntil(async () => !(await journalsIn(directory)).includes(elsewhere), inTime)
    // Its journal is not in place any more: what it adds is in a new one before it says so.
    await one.add(tag('b'))
    await vi.waitUntil(() => hardAt(two, 'b') === 1000, inTime)
    await one.close()
    await two.close()
    const third = await open(directory)
    expect([hardAt(third, 'a'), hardAt(third, 'b')]).toEqual([1000, 1000])
  })

  test('a folder that is removed is written again', async () => {
    const directory = await folder()
    const log = await open(directory, { pollMs: 10 })
    await log.add(tag('a'))
    await rm(join(directory, 'purges'), { recursive: true })
    await vi.waitUntil(async () => (await journalsIn(directory).catch(() => [])).some((name) => name.endsWith('.purges')), inTime)
    const other = await open(directory)
    expect(hardAt(other, 'a')).toBe(1000)
  })

  test('what dead logs began to write is removed, other files are left alone', async () => {
    const directory = await folder()
    await mkdir(join(directory, 'purges'))
    const owner = new Owner()
    owner.release()
    await placeKnown()
    for (const name of [`${owner.name}.1.tmp`, '01234567.1.0.0123456789ab.1.tmp', 'tmp']) await writeFile(join(directory, 'purges', name), 'x')
    await open(directory, { pollMs: 10 })
    await vi.waitUntil(async () => (await journalsIn(directory)).length === 2, inTime)
  })
})

describe('a disk that fails', () => {
  test('full: the purge is rejected, counts in this process, and is written when there is room', async () => {
    const disk = await mountTmpfs(MIB)
    const faults: DiskFault[] = []
    const clock = createFakeClock()
    const log = await open(disk.path, { pollMs: 10, clock, onFault: (fault) => faults.push(fault) })
    await log.add(tag('before'))
    const hog = join(disk.path, 'hog')
    await writeFile(hog, Buffer.alloc(2 * MIB)).catch(() => {})
    const long = 'x'.repeat(20_000)
    await expect(log.add(tag(long))).rejects.toMatchObject({ code: 'DISK_FULL', message: 'the disk is full' })
    expect([hardAt(log, long), hardAt(log, 'before')]).toEqual([1000, 1000])
    expect(faults.map(({ side, kind }) => `${side} ${kind}`)).toEqual(['purges full'])
    const other = await open(disk.path, { pollMs: 10 })
    expect([hardAt(other, 'before'), hardAt(other, long)]).toEqual([1000, Number.NEGATIVE_INFINITY])
    await rm(hog)
    await vi.waitUntil(() => hardAt(other, long) === 1000, inTime)
    await log.add(tag('after'))
    await log.close()
    await other.close()
    const last = await open(disk.path)
    expect(['before', long, 'after'].map((value) => hardAt(last, value))).toEqual([1000, 1000, 1000])
  })

  test('full, again and again: what waits is bounded, and nothing is lost', async () => {
    const disk = await mountTmpfs(MIB)
    const log = await open(disk.path, { pollMs: 10, maxRecords: 40 })
    const hog = join(disk.path, 'hog')
    await writeFile(hog, Buffer.alloc(2 * MIB)).catch(() => {})
    for (let i = 0; i < 200; i++) await expect(log.add(tag(`t${i}`, i))).rejects.toMatchObject({ code: 'DISK_FULL' })
    await rm(hog)
    await log.add(tag('last', 1000))
    const other = await open(disk.path, { maxRecords: 40 })
    for (let i = 0; i < 200; i++) expect(hardAt(other, `t${i}`)).toBeGreaterThanOrEqual(i)
    expect(hardAt(other, 'none')).toBeLessThan(190)
  })

  test('read-only: the same, and what an earlier log left holds', async () => {
    const disk = await mountTmpfs(MIB)
    const first = await open(disk.path)
    await first.add(tag('a'))
    await first.close()
    await disk.readOnly()
    const log = await open(disk.path, { pollMs: 10 })
    expect(hardAt(log, 'a')).toBe(1000)
    await expect(log.add(tag('b'))).rejects.toMatchObject({ code: 'DISK_READ_ONLY' })
    expect(hardAt(log, 'b')).toBe(1000)
    await disk.writable()
    await vi.waitUntil(
      () =>
        log
          .add(tag('c'))
          .then(() => true)
          .catch(() => false),
      inTime
    ) // prettier-ignore
    const other = await open(disk.path)
    expect(['a', 'b', 'c'].map((value) => hardAt(other, value))).toEqual([1000, 1000, 1000])
  })

  test('one that cannot be read: what was stored before has to be confirmed until it can', async () => {
    const directory = await folder()
    const unreadable = join(directory, 'purges', '01234567.1.0.0123456789ab.1.purges')
    await mkdir(unreadable, { recursive: true })
    const faults: DiskFault[] = []
    const log = new DiskPurgeLog({ directory, pollMs: 10, onFault: (fault) => faults.push(fault) })
    onTestFinished(() => log.close())
    await expect(log.prepare()).rejects.toMatchObject({ code: 'DISK_UNAVAILABLE' })
    expect(faults.map(({ side, kind }) => `${side} ${kind}`)).toEqual(['purges io'])
    const { revision } = log
    const [before, after] = [sampleMeta({ requestTime: Date.now() - 1000 }), sampleMeta({ requestTime: Date.now() + 1000 })]
    const never = { hardAt: Number.NEGATIVE_INFINITY, softAt: Number.NEGATIVE_INFINITY }
    expect([log.verdict(before), log.verdict(after)]).toEqual([{ ...never, softAt: Number.POSITIVE_INFINITY }, never])
    await log.add({ scope: 'all', value: '', at: 7, soft: false })
    expect(log.verdict(before)).toEqual({ hardAt: 7, softAt: Number.POSITIVE_INFINITY })
    await rm(unreadable, { recursive: true })
    await vi.waitUntil(() => log.verdict(before).softAt < 0, inTime)
    expect(log.revision).toBeGreaterThan(revision + 1)
  })

  test('one that hangs: the purge is rejected in time', async () => {
    const directory = await folder()
    const store = await openStore(directory, { maxOperations: 1 })
    const log = await open(directory, { store, writeTimeoutMs: 50 })
    await log.add(tag('a'))
    // Takes the only operation of the store, as a disk does that does not answer.
    const { io } = store as unknown as { io: { run(lane: string, start: (done: (error: null) => void) => void): Promise<unknown> } }
    const end = Promise.withResolvers<(error: null) => void>()
    const hanging = io.run('read', (done) => end.resolve(done))
    const letGo = await end.promise
    await expect(log.add(tag('b'))).rejects.toMatchObject({ code: 'DISK_TIMEOUT' })
    expect(hardAt(log, 'b')).toBe(1000)
    letGo(null)
    await hanging
    const other = await open(directory, { pollMs: 10 })
    await vi.waitUntil(() => hardAt(other, 'b') === 1000, inTime)
  })
})

test('options that cannot be meant are refused, as are purges that are too long or come too late', async () => {
  for (const wrong of [{ directory: '' }, { directory: 'a\0b' }, { pollMs: 0 }, { writeTimeoutMs: 2 ** 31 }, { maxRecords: 3 }, { pollMs: '1' as unknown as number }]) {
    expect(() => new DiskPurgeLog({ directory: '/nowhere', ...wrong })).toThrow(/must/)
  }
  const log = await open(await folder())
  await expect(log.add(tag('x'.repeat(MIB)))).rejects.toThrow(RangeError)
  await log.close()
  await expect(log.add(tag('late'))).rejects.toMatchObject({ code: 'DISK_CLOSED' })
  await log.close()
})
