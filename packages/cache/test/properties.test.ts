import fc from 'fast-check'
import { test } from 'vitest'
import type { How, Rules } from './model-origin.ts'
import { type Question, type Setup, World } from './model-world.ts'
import { settle } from './support.ts'

/** Seeds that have found something, how many sequences of theirs it takes, and what it was. To be found anew when the commands change: with the fix undone. */
const regressions: readonly (readonly [number, number, string])[] = [
  [6, 20, 'fields that a 304 keeps for its client were stored for all'],
  [1, 20, 'who joined a fill late got what was stale, and no Age'],
  [3, 60, 'what was fetched before its target changed could be found until it was removed'],
  [7, 200, 'an index that was written late brought the variants back that were forgotten'],
  [1, 1200, 'a HEAD that says private renewed what is served to all'],
  [873_021, 2200, 'the clock was set back while an answer came, and its Age was lost']
]
const runs = Number(process.env.CACHE_MODEL_RUNS ?? 4000)
const seed = Number(process.env.CACHE_MODEL_SEED ?? (Date.now() % 1_000_000) + 1)
const maxCommands = 40

const rules: fc.Arbitrary<Rules> = fc.record({
  cacheControl: fc.oneof(
    {
      weight: 9,
      arbitrary: fc.constantFrom(
        'max-age=10',
        'max-age=60',
        's-maxage=10, max-age=0',
        'public, max-age=30',
        'max-age=5, stale-while-revalidate=20',
        's-maxage=5, stale-while-revalidate=20',
        'max-age=5, stale-if-error=100',
        'max-age=5, must-revalidate',
        'max-age=5, proxy-revalidate, stale-while-revalidate=100',
        'private="x-user", max-age=20',
        undefined
      )
    },
    { weight: 1, arbitrary: fc.constantFrom('max-age=0', 'no-cache', 'no-store', 'private, max-age=60') }
  ),
  vary: fc.oneof({ weight: 10, arbitrary: fc.constantFrom<readonly string[]>([], [], ['accept-language'], ['accept-language', 'x-flag'], ['cookie']) }, { weight: 1, arbitrary: fc.constant(['*']) }),
  validator: fc.constantFrom('strong', 'strong', 'weak', 'date', 'none'),
  size: fc.constantFrom(0, 1, 200, 3000, 40_000, 90_000),
  declared: fc.boolean(),
  ranges: fc.boolean(),
  setCookie: fc.oneof({ weight: 14, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
  age: fc.constantFrom(undefined, undefined, undefined, 3)
})

const setup: fc.Arbitrary<Setup> = fc.record({
  seed: fc.nat(),
  rules: fc.array(rules, { minLength: 2, maxLength: 2 }),
  trouble: fc.constantFrom(0, 0, 0.05, 0.2),
  slowness: fc.constantFrom(0, 0.2, 0.6),
  canFollow: fc.boolean(),
  maxBytes: fc.constantFrom(64_000_000, 64_000_000, 150_000),
  windowBytes: fc.constantFrom(1, 2000, 30_000, 1_000_000),
  finishBytes: fc.constantFrom(0, 20_000, 1_000_000),
  whileRevalidateMs: fc.constantFrom(0, 0, 5000),
  ifErrorMs: fc.constantFrom(0, 20_000),
  ifUnreachableMs: fc.constantFrom(0, 86_400_000),
  connectErrorMs: fc.constantFrom(0, 0, 3000)
})

class Command implements fc.AsyncCommand<World, World> {
  private readonly name: string
  private readonly act: (world: World) => void | Promise<void>
  private readonly applies: (world: World) => boolean

  constructor(name: string, act: (world: World) => void | Promise<void>, applies: (world: World) => boolean = () => true) {
    this.name = name
    this.act = act
    this.applies = applies
  }
  check(world: Readonly<World>): boolean {
    return this.applies(world as World)
  }
  async run(world: World): Promise<void> {
    await this.act(world)
    // What a client has got wrong is told at once, so that little follows it.
    if (world.problems.length > 0) throw new Error(world.problems.join('\n'))
  }
  toString(): string {
    return this.name
  }
}

const path = fc.constantFrom('/0', '/0', '/0', '/0', '/0', '/1')
const at = fc.nat({ max: 20 })
/** What a command is about may be gone when its turn has come. */
const pick = <T>(list: readonly T[], index: number): T | undefined => list[index % list.length]

const maybe = (...values: string[]): fc.Arbitrary<string | undefined> => fc.oneof({ weight: 2, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: fc.constantFrom(...values) })
const fields = fc
  .record({
    'accept-language': maybe('de', 'en'),
    'x-flag': maybe('1'),
    cookie: maybe('a=1'),
    authorization: fc.oneof({ weight: 9, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: fc.constant('Bearer x') }),
    range: fc.oneof({ weight: 9, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: fc.constantFrom('bytes=0-99', 'bytes=100-50000', 'bytes=1000000-1000001') }),
    'cache-control': fc.oneof(
      { weight: 9, arbitrary: fc.constant(undefined) },
      { weight: 2, arbitrary: fc.constantFrom('no-cache', 'no-store', 'max-age=3', 'min-fresh=3', 'max-stale=30', 'max-stale', 'max-stale=30, max-age=12', 'only-if-cached') }
    )
  })
  .map((record) => Object.fromEntries(Object.entries(record).filter((entry): entry is [string, string] => entry[1] !== undefined)))
const question: fc.Arbitrary<Question> = fc.record({
  method: fc.constantFrom('GET', 'GET', 'GET', 'GET', 'GET', 'GET', 'GET', 'HEAD'),
  path,
  fields,
  slow: fc.boolean(),
  leaves: fc.constantFrom(false, false, false, false, false, true)
})

const asks = question.map((each) => new Command(`ask ${JSON.stringify(each)}`, (world) => world.ask(each)))
const open = (world: World) => world.origin.sent.filter(({ over }) => !over)
/** Asked, answered and read, as far as nothing holds it up: without these few sequences would come to something that is stored. */
const exchanges = fc.tuple(question, fc.constantFrom<How>('normal', 'normal', 'normal', 'normal', 'normal', 'normal', 'normal', 'unreachable', 'unavailable', 'missing', 'mismatch')).map(
  ([each, how]) =>
    new Command(`exchange ${JSON.stringify(each)} ${how}`, async (world) => {
      world.ask({ ...each, slow: false, leaves: false })
      for (let turns = 0; turns < 6; turns++) {
        await settle(1)
        for (const { release } of world.origin.waiting.splice(0)) release(how)
        await settle(1)
        for (const sent of open(world)) for (let i = 0; i < 4 && sent.source?.paused === false; i++) world.origin.push(sent, 50_000)
      }
    })
)
const posts = fc.tuple(path, fc.constantFrom(undefined, undefined, '/0'), fc.boolean()).map(
  ([where, changes, atOnce]) =>
    new Command(`post ${where} ${changes} ${atOnce}`, async (world) => {
      const before = world.origin.waiting.length
      world.post(where, changes)
      if (!atOnce) return
      await settle(1)
      for (const { release } of world.origin.waiting.splice(before)) release('normal')
      await settle(2)
    })
)
const answers = fc.tuple(at, fc.constantFrom<How>('normal', 'normal', 'normal', 'normal', 'normal', 'late', 'late', 'unreachable', 'unavailable', 'missing', 'mismatch')).map(
  ([index, how]) =>
    new Command(
      `answer ${index} ${how}`,
      (world) => {
        const waiting = world.origin.waiting
        waiting.splice(index % waiting.length, 1)[0]?.release(how)
        return settle(1)
      },
      (world) => world.origin.waiting.length > 0
    )
)
const pushes = fc.tuple(at, fc.constantFrom(1, 50, 1000, 30_000, 100_000), fc.nat({ max: 5 })).map(
  ([index, size, times]) =>
    new Command(
      `push ${index} ${times} times ${size}`,
      (world) => {
        const sent = pick(open(world), index)
        // Some chunks are under way already when the pause is asked for.
        for (let i = 0; i <= times && !(sent?.source?.paused && i > 1); i++) world.origin.push(sent, size)
      },
      (world) => open(world).length > 0
    )
)
const breaks = at.map(
  (index) =>
    new Command(
      `break off ${index}`,
      (world) => world.origin.breakOff(pick(open(world), index)),
      (world) => open(world).length > 0
    )
)
const cuts = at.map(
  (index) =>
    new Command(
      `cut ${index}`,
      (world) => world.origin.cut(pick(open(world), index)),
      (world) => open(world).length > 0
    )
)
const reading = (world: World) => world.clients.filter(({ reader }) => reader?.state === 'reading')
const reads = fc.tuple(at, fc.constantFrom('take', 'take', 'hurry', 'leave')).map(
  ([index, what]) =>
    new Command(
      `reader ${index} ${what}`,
      (world) => {
        const reader = pick(reading(world), index)?.reader
        if (what === 'hurry') reader?.hurry()
        else if (what === 'leave') reader?.leave()
        else if (reader?.isPaused) reader.take()
      },
      (world) => reading(world).length > 0
    )
)
const waiting = (world: World) => world.clients.filter(({ answer, failure }) => answer === undefined && failure === undefined)
const aborts = at.map(
  (index) =>
    new Command(
      `abort ${index}`,
      (world) => pick(waiting(world), index)?.abort.abort(),
      (world) => waiting(world).length > 0
    )
)
/** No time passes between two steps of a program that wait for nothing. */
async function later(act: () => void): Promise<void> {
  await settle(1)
  act()
}
const clocks = fc.constantFrom(1, 900, 1000, 3000, 4000, 5001, 6000, 11_000, 25_000, 61_000).map((ms) => new Command(`${ms} ms pass`, (world) => later(() => world.clock.advance(ms))))
const jumps = fc.constantFrom(-60_000, -1500, 1500, 60_000).map((ms) => new Command(`the clock is set by ${ms} ms`, (world) => later(() => world.clock.jumpWall(ms))))
const changes = fc.tuple(path, fc.option(rules, { nil: undefined })).map(([where, to]) => new Command(`${where} changes to ${JSON.stringify(to)}`, (world) => world.origin.change(where, to)))
const says = fc
  .tuple(path, fc.constantFrom('private, max-age=60', 'no-store', 'max-age=60, private="x-user"', 'max-age=5', 'max-age=400000'))
  .map(([where, to]) => new Command(`${where} says ${to}`, (world) => world.origin.say(where, to)))
const arrivals = at.map(
  (index) =>
    new Command(
      `arrival ${index}`,
      (world) => {
        world.origin.underway.splice(index % world.origin.underway.length, 1)[0]?.()
        return settle(1)
      },
      (world) => world.origin.underway.length > 0
    )
)
const releases = at.map(
  (index) =>
    new Command(
      `the store goes on ${index}`,
      (world) => {
        world.store.held.splice(index % world.store.held.length, 1)[0]?.()
        return settle(1)
      },
      (world) => world.store.held.length > 0
    )
)
const settles = fc.nat({ max: 3 }).map((turns) => new Command(`${turns} turns`, () => settle(turns)))
const drains = fc.constant(new Command('drain', (world) => world.drain()))

/** Not the small ones first, as they would come to nothing. */
const commands = fc.noBias(
  fc.commands<World, World, false>(
    [
      exchanges,
      exchanges,
      exchanges,
      exchanges,
      asks,
      asks,
      asks,
      answers,
      answers,
      pushes,
      pushes,
      reads,
      clocks,
      clocks,
      releases,
      releases,
      settles,
      posts,
      posts,
      arrivals,
      breaks,
      cuts,
      aborts,
      jumps,
      changes,
      says,
      drains
    ],
    { maxCommands, size: 'max' }
  )
)

async function check(seedOfRun: number, numRuns: number): Promise<void> {
  await fc.assert(
    fc.asyncProperty(setup, commands, async (given, sequence) => {
      const world = new World(given)
      await fc.asyncModelRun(() => ({ model: world, real: world }), sequence)
      await world.finish()
    }),
    { seed: seedOfRun, numRuns, endOnFailure: process.env.CACHE_MODEL_SHRINK === '0' }
  )
}

test(`whatever clients, origin, store and clock do, everybody gets what is meant for them (seed ${seed})`, () => check(seed, runs), 3_600_000)

test.each(regressions)('seed %i, %i sequences: %s', (each, count) => check(each, count), 120_000)
