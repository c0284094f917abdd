import { describe, expect, test } from 'vitest'
import { purgeLogConformance, sampleMeta } from '../src/conformance.ts'
import { MemoryPurgeLog, type PurgeRecord } from '../src/index.ts'
import { decodePurgeRecord, encodePurgeRecord } from '../src/purging.ts'

purgeLogConformance({ test, create: async (options) => ({ log: new MemoryPurgeLog(options), close: async () => {} }) })

const record = (changes: Partial<PurgeRecord>): PurgeRecord => ({ scope: 'all', value: '', at: 0, soft: false, ...changes })

describe('what is kept', () => {
  test('gives the same verdicts when it is added to another log', async () => {
    const log = new MemoryPurgeLog({ maxRecords: 10 })
    for (let at = 0; at < 37; at++) await log.add(record({ scope: at % 5 === 0 ? 'prefix' : 'tag', value: `${(at * 7) % 23}`, at: (at * 31) % 37, soft: at % 3 === 0 }))
    const other = new MemoryPurgeLog({ maxRecords: 10 })
    for (const one of log.records) await other.add(one)
    expect([...other.records]).toEqual([...log.records])
    expect(log.size).toBeLessThanOrEqual(10)
  })

  test('is nothing that a purge of everything covers', async () => {
    const log = new MemoryPurgeLog()
    for (const [i, namespace] of ['a', 'b', undefined].entries()) {
      await log.add(record({ scope: 'tag', value: 't', at: 10 + i, ...(namespace !== undefined && { namespace }) }))
      await log.add(record({ scope: 'prefix', value: 'https://', at: 10, soft: true, ...(namespace !== undefined && { namespace }) }))
    }
    await log.add(record({ namespace: 'a', at: 20 }))
    expect(log.size).toBe(6)
    await log.add(record({ at: 11 }))
    expect([...log.records].filter(({ soft }) => !soft)).toEqual([record({ scope: 'tag', value: 't', at: 12 }), record({ namespace: 'a', at: 20 }), record({ at: 11 })])
    const { revision } = log
    await log.add(record({ scope: 'url', value: 'https://example.org/', at: 11 }))
    expect([log.revision, log.size]).toEqual([revision, 6])
    expect(log.verdict(sampleMeta({ namespace: 'b', tags: [] }))).toEqual({ hardAt: 11, softAt: 10 })
  })

  test('before a time becomes one purge of everything of each kind', async () => {
    const log = new MemoryPurgeLog()
    for (let at = 0; at < 20; at++) await log.add(record({ scope: 'tag', value: `${at}`, at, soft: at % 2 === 0 }))
    expect(log.foldBefore(10)).toBe(true)
    expect(log.size).toBe(12)
    expect(log.verdict(sampleMeta({ tags: [] }))).toEqual({ hardAt: 9, softAt: 8 })
    expect(log.foldBefore(10)).toBe(false)
  })

  test('has a bound that can be kept', () => {
    for (const maxRecords of [3, 4.5, Number.NaN]) expect(() => new MemoryPurgeLog({ maxRecords })).toThrow(RangeError)
  })
})

test('a record as text', () => {
  for (const one of [record({}), record({ scope: 'tag', value: 'a\n"\u2028', namespace: '', at: 1.5, soft: true })]) {
    const text = encodePurgeRecord(one)
    expect(text).not.toContain('\n')
    expect(decodePurgeRecord(text)).toEqual(one)
  }
  for (const text of ['', '{}', '[]', '["all","",null,"1",false]', '["some","",null,1,false]', '["all","",1,1,false]', '["all","",null,1,0]', '["all","",null,1,false,1]', 'null']) {
    expect(decodePurgeRecord(text)).toBeUndefined()
  }
})
