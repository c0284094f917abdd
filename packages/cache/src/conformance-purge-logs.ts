import assert from 'node:assert/strict'
import { sampleMeta } from './conformance-tools.ts'
import { MemoryPurgeLog, type PurgeLog, type PurgeRecord, type PurgeScope } from './purge-log.ts'
import type { CacheMeta } from './store.ts'

/** A log that is being tested. */
export interface OpenPurgeLog {
  readonly log: PurgeLog
  close(): Promise<void>
  /** Another log over the same records, that has read them: in another process, or after a restart. Absent where a log promises neither. */
  readonly again?: () => Promise<OpenPurgeLog>
}

export interface PurgeLogConformanceOptions {
  /** Registers one case: vitest's or node:test's `test`. */
  readonly test: (name: string, body: () => Promise<void>) => void
  /** A log without records that nobody else uses and that adds nothing to the times of records, with this bound. Called once per case, which closes it. */
  readonly create: (options: { readonly maxRecords: number }) => Promise<OpenPurgeLog>
}

/** Times are to come: a log that goes by the clock of a server leaves them as they are. */
const base = (): number => Date.now() + 24 * 3_600_000
const never = { hardAt: Number.NEGATIVE_INFINITY, softAt: Number.NEGATIVE_INFINITY }
const record = (changes: Partial<PurgeRecord>): PurgeRecord => ({ scope: 'all', value: '', at: base(), soft: false, ...changes })
const about = (changes: Partial<CacheMeta>): CacheMeta => sampleMeta({ url: 'https://example.org/a/b?c=1', namespace: 'n', tags: ['t', 'u'], ...changes })

/** The cases every `PurgeLog` passes. Registers them with `options.test`. */
export function purgeLogConformance(options: PurgeLogConformanceOptions): void {
  const check = (name: string, run: (opened: OpenPurgeLog, maxRecords: number) => Promise<void>, maxRecords = 1000): void => {
    options.test(name, async () => {
      const opened = await options.create({ maxRecords })
      try {
        await run(opened, maxRecords)
      } finally {
        await opened.close()
      }
    })
  }

  check('an empty log purges nothing', async ({ log }) => {
    assert.deepEqual(log.verdict(about({})), never)
  })

  const at = base()
  for (const [name, given, hit, missed] of [
    ['a URL', { scope: 'url', value: 'https://example.org/a/b?c=1' }, [{}], [{ url: 'https://example.org/a/b' }, { url: 'https://example.org/a/b?c=12' }]],
    ['a prefix', { scope: 'prefix', value: 'https://example.org/a/' }, [{}, { url: 'https://example.org/a/' }], [{ url: 'https://example.org/a' }, { url: 'http://example.org/a/b' }]],
    ['a tag', { scope: 'tag', value: 'u' }, [{}, { tags: ['u'] }], [{ tags: [] }, { tags: ['uu', 'U'] }]],
    ['everything', {}, [{}, { url: 'http://other.example/', tags: [], namespace: '' }], []],
    ['a namespace', { namespace: 'n' }, [{}], [{ namespace: 'm' }, { namespace: '' }, { namespace: 'n\n' }]],
    ['the empty namespace', { namespace: '' }, [{ namespace: '' }], [{}]],
    ['a URL of a namespace', { scope: 'url', value: 'https://example.org/a/b?c=1', namespace: 'n' }, [{}], [{ namespace: 'm' }]],
    ['odd text', { scope: 'tag', value: 'ü"\\\u2028\u{1f600}\u0000', namespace: 'a\r\nb' }, [{ tags: ['ü"\\\u2028\u{1f600}\u0000'], namespace: 'a\r\nb' }], [{}]],
    ['a long URL', { scope: 'url', value: `https://example.org/${'x'.repeat(8000)}` }, [{ url: `https://example.org/${'x'.repeat(8000)}` }], [{}]]
  ] as [string, Partial<PurgeRecord>, Partial<CacheMeta>[], Partial<CacheMeta>[]][]) {
    check(`a purge of ${name} is about that and nothing else, hard and soft`, async ({ log, again }) => {
      const expectAll = (judge: PurgeLog, verdict: object): void => {
        for (const changes of hit) assert.deepEqual(judge.verdict(about(changes)), verdict)
        for (const changes of missed) assert.deepEqual(judge.verdict(about(changes)), never)
      }
      await log.add(record({ ...given, at, soft: true }))
      expectAll(log, { hardAt: never.hardAt, softAt: at })
      await log.add(record({ ...given, at: at + 7 }))
      expectAll(log, { hardAt: at + 7, softAt: at })
      await using(again, (other) => expectAll(other, { hardAt: at + 7, softAt: at }))
    })
  }

  check('it counts when add is called, and an earlier record takes nothing back', async ({ log }) => {
    const added = log.add(record({ scope: 'tag', value: 't', at: at + 100 }))
    assert.equal(log.verdict(about({})).hardAt, at + 100)
    await added
    await log.add(record({ scope: 'tag', value: 't', at: at + 50 }))
    await log.add(record({ scope: 'url', value: 'https://example.org/a/b?c=1', at: at + 70 }))
    assert.equal(log.verdict(about({})).hardAt, at + 100)
    assert.equal(log.verdict(about({ tags: [] })).hardAt, at + 70)
  })

  check('the revision changes whenever a verdict does', async ({ log }) => {
    const seen = new Set([log.revision])
    for (const change of [{}, { soft: true }, { at: at + 1e6 }, { scope: 'prefix', value: 'https://', at: at + 2e6 }, { scope: 'tag', value: 't', at: at + 3e6 }] as Partial<PurgeRecord>[]) {
      const before = JSON.stringify(log.verdict(about({})))
      await log.add(record({ at, ...change }))
      assert.notEqual(JSON.stringify(log.verdict(about({}))), before)
      assert.equal(seen.has(log.revision), false)
      seen.add(log.revision)
    }
  })

  check(
    'the same purge again and again takes no room',
    async ({ log, again }, maxRecords) => {
      for (let i = 0; i < 5 * maxRecords; i += 50) await Promise.all(Array.from({ length: 50 }, (_, j) => log.add(record({ scope: 'tag', value: 'news', at: at + i + j }))))
      await log.add(record({ scope: 'tag', value: 'other', at: at + 1 }))
      const expectThat = (judge: PurgeLog): void => {
        assert.equal(judge.verdict(about({ tags: ['news'] })).hardAt, at + 5 * maxRecords - 1)
        assert.deepEqual(judge.verdict(about({})), never)
      }
      expectThat(log)
      await using(again, expectThat)
    },
    40
  )

  check(
    'beyond its bound too much is purged, never too little',
    async ({ log, again }, maxRecords) => {
      const count = 3 * maxRecords
      for (let i = 0; i < count; i++) await log.add(record({ scope: 'url', value: `https://example.org/${i}`, at: at + i, soft: i % 3 === 0 }))
      const expectThat = (judge: PurgeLog): void => {
        for (let i = 0; i < count; i++) {
          const { hardAt, softAt } = judge.verdict(about({ url: `https://example.org/${i}` }))
          assert.ok((i % 3 === 0 ? softAt : hardAt) >= at + i)
        }
        // What was asked for in the time of the newer half is not purged along with the older one.
        const { hardAt, softAt } = judge.verdict(about({}))
        assert.ok(Math.max(hardAt, softAt) < at + count - maxRecords / 4)
        assert.ok(Math.min(hardAt, softAt) > at)
      }
      expectThat(log)
      await using(again, expectThat)
    },
    40
  )

  for (const [name, maxRecords] of [
    ['within its bound', 1000],
    ['beyond it', 20]
  ] as const) {
    check(
      `random purges, ${name}: the verdicts are those of a log in memory, and a log that is opened afterwards gives the same`,
      async ({ log, again }) => {
        const random = generator(maxRecords)
        const control = new MemoryPurgeLog({ maxRecords })
        for (let i = 0; i < 150; i++) {
          const next = randomRecord(random)
          await Promise.all([control.add(next), log.add(next)])
        }
        const metas = Array.from({ length: 300 }, () => about({ url: pick(random, urls), namespace: pick(random, namespaces), tags: tags.filter(() => random() < 0.5) }))
        for (const meta of metas) assert.deepEqual(log.verdict(meta), control.verdict(meta))
        await using(again, (other) => {
          for (const meta of metas) assert.deepEqual(other.verdict(meta), control.verdict(meta))
        })
      },
      maxRecords
    )
  }
}

async function using(again: OpenPurgeLog['again'], run: (log: PurgeLog) => void): Promise<void> {
  const opened = await again?.()
  if (opened === undefined) return
  try {
    run(opened.log)
  } finally {
    await opened.close()
  }
}

const urls = ['https://a.example/', 'https://a.example/x', 'https://a.example/x/y', 'https://b.example/x']
const tags = ['t', 'u', 'v']
const namespaces = ['', 'n', 'm']
const scopes: readonly PurgeScope[] = ['url', 'url', 'prefix', 'tag', 'tag', 'all']

function randomRecord(random: () => number): PurgeRecord {
  const scope = random() < 0.95 ? pick(random, scopes.slice(0, 5)) : 'all'
  const value =
    scope === 'all'
      ? ''
      : scope === 'tag'
        ? pick(random, tags) + pick(random, ['', '1', '2', '3', '4', '5'])
        : pick(random, urls).slice(0, scope === 'prefix' ? 15 + Math.floor(random() * 5) : undefined)
  const namespace = random() < 0.3 ? undefined : pick(random, namespaces)
  return { scope, value, ...(namespace !== undefined && { namespace }), at: at0 + Math.floor(random() * 1000), soft: random() < 0.4 }
}

const at0 = base()
const pick = <T>(random: () => number, from: readonly T[]): T => from[Math.floor(random() * from.length)] as T

/** Numbers from 0 up to 1, the same ones for the same seed. */
function generator(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32
  }
}
