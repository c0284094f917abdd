import type { ServerResponse } from 'node:http'
import { startFaultProxy, startOrigin } from '@proxy/testing'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Config } from '../src/index.ts'
import { type Answer, ask, startProxy, until } from './helpers.ts'

/** An answer that is 40 s beyond its lifetime as soon as it is stored. */
const STALE = { age: '100' }
const LIFETIME = 'max-age=60'

interface Scene {
  /** What the origin does from now on; at first it gives `old`, with the fields of the test. */
  answers(listener: (response: ServerResponse) => void): void
  get(headers?: Record<string, string>): Promise<Answer>
  /** Requests at the origin. */
  asked(): number
  /** What the cache did with the last request. */
  did(): unknown
}

/** With `old` stored. */
async function storedStale(control: string, config: Partial<Config> & { target?: (port: number) => Promise<string> } = {}): Promise<Scene> {
  const { target, ...rest } = config
  let listener = (response: ServerResponse): void => void response.writeHead(200, { ...STALE, 'cache-control': control, etag: '"old"' }).end('old')
  const origin = await startOrigin((_, response) => listener(response))
  onTestFinished(() => origin.close())
  const proxy = await startProxy({ pools: { web: { targets: [(await target?.(origin.port)) ?? origin.url], timeouts: { headers: '300ms' } } }, ...rest })
  const get = (headers: Record<string, string> = {}): Promise<Answer> => ask(proxy.url, { headers })
  expect((await get()).text).toBe('old')
  return {
    answers: (next) => {
      listener = next
    },
    get,
    asked: () => origin.requests.length,
    did: () => proxy.requests().at(-1)?.cache
  }
}

function answer(text: string, status = 200): (response: ServerResponse) => void {
  return (response) => void response.writeHead(status, status === 200 ? { 'cache-control': LIFETIME } : {}).end(text)
}

/** RFC 5861 section 3. */
describe('stale-while-revalidate', () => {
  const control = `${LIFETIME}, stale-while-revalidate=50`

  test('is served before the origin has answered, asks it once for all who come, and what it brings is what comes next', async () => {
    const scene = await storedStale(control)
    const held: ServerResponse[] = []
    scene.answers((response) => void held.push(response))
    const answers = await Promise.all(Array.from({ length: 20 }, () => scene.get()))
    expect(new Set(answers.map(({ text }) => text))).toEqual(new Set(['old']))
    for (const { headers } of answers) {
      expect(headers['cache-status']).toMatch(/; hit; .*detail=stale-while-revalidate/)
      expect(Number(headers.age)).toBeGreaterThanOrEqual(100)
    }
    await until(() => held.length === 1)
    answer('new')(held[0] as ServerResponse)
    await until(async () => (await scene.get()).text === 'new')
    expect(scene.did()).toBe('hit')
    expect(scene.asked()).toBe(2)
  })

  test('a 304 in the background makes it fresh again', async () => {
    const scene = await storedStale(control)
    scene.answers((response) => void response.writeHead(304, { 'cache-control': LIFETIME, etag: '"old"', age: '0' }).end())
    expect((await scene.get()).text).toBe('old')
    await until(async () => {
      await scene.get()
      return scene.did() === 'hit'
    })
    expect(scene.asked()).toBe(2)
  })

  test.each([
    ['the time is over', `${LIFETIME}, stale-while-revalidate=30`],
    ['0', `${LIFETIME}, stale-while-revalidate=0`],
    ['must-revalidate', `${control}, must-revalidate`],
    ['proxy-revalidate', `${control}, proxy-revalidate`],
    ['no-cache', `${control}, no-cache`]
  ])('not where %s: the client waits for the origin', async (_, forbidding) => {
    const scene = await storedStale(forbidding)
    scene.answers(answer('new'))
    expect((await scene.get()).text).toBe('new')
    expect(scene.asked()).toBe(2)
  })

  test.each([['no-cache'], ['max-age=0'], ['max-age=80'], ['min-fresh=1']])('not for a client that says %s', async (wish) => {
    const scene = await storedStale(control)
    scene.answers(answer('new'))
    expect((await scene.get({ 'cache-control': wish })).text).toBe('new')
  })

  test('an origin that fails in the background is asked again a second later, not by each client', async () => {
    const scene = await storedStale(control)
    scene.answers((response) => void response.destroy())
    for (let i = 0; i < 10; i++) expect((await scene.get()).text).toBe('old')
    const failed = scene.asked()
    expect(failed).toBeLessThan(5)
    scene.answers(answer('new'))
    await until(async () => (await scene.get()).text === 'new')
    expect(scene.asked()).toBe(failed + 1)
  })

  test('an answer that must not be stored takes the place of what was', async () => {
    const scene = await storedStale(control)
    scene.answers((response) => void response.writeHead(200, { 'cache-control': 'no-store' }).end('private'))
    expect((await scene.get()).text).toBe('old')
    await until(async () => (await scene.get()).text === 'private')
    expect(scene.did()).toBe('miss')
  })
})

/** RFC 5861 section 4, RFC 9111 section 4.2.4. */
describe('stale-if-error', () => {
  const control = `${LIFETIME}, stale-if-error=50`

  interface Failure {
    readonly name: string
    /** What the client gets where nothing may stand in. */
    readonly status: number
    readonly fail: (scene: Scene, door: Door) => void | Promise<void>
  }
  type Door = Awaited<ReturnType<typeof startFaultProxy>>

  const failures: readonly Failure[] = [
    ...[500, 502, 503, 504].map((status): Failure => ({ name: String(status), status, fail: (scene) => scene.answers(answer('failed', status)) })),
    { name: 'refused', status: 502, fail: (_, door) => door.setMode({ kind: 'refuse' }) },
    { name: 'reset', status: 502, fail: (scene) => scene.answers((response) => void response.socket?.resetAndDestroy()) },
    { name: 'closed without an answer', status: 502, fail: (scene) => scene.answers((response) => void response.socket?.end()) },
    { name: 'closed in the middle of the header', status: 502, fail: (scene) => scene.answers((response) => void response.socket?.end('HTTP/1.1 200 OK\r\nContent-Le')) },
    { name: 'no HTTP', status: 502, fail: (scene) => scene.answers((response) => void response.socket?.end('SSH-2.0-OpenSSH_9.2\r\n\r\n')) },
    { name: 'no answer in time', status: 504, fail: (scene) => scene.answers(() => {}) }
  ]

  async function behindDoor(cacheControl: string, config: Partial<Config> = {}): Promise<{ scene: Scene; door: Door }> {
    let door: Door | undefined
    const scene = await storedStale(cacheControl, {
      ...config,
      target: async (port) => {
        door = await startFaultProxy({ port })
        onTestFinished(() => door?.stop())
        return `http://127.0.0.1:${door.port}`
      }
    })
    return { scene, door: door as Door }
  }

  test.each(failures)('stands in: $name', async ({ fail, status, name }) => {
    const { scene, door } = await behindDoor(control)
    await fail(scene, door)
    const { text, headers, status: given } = await scene.get()
    expect([given, text]).toEqual([200, 'old'])
    expect(headers['cache-status']).toContain('detail=stale-if-error')
    if (name === String(status)) expect(headers['cache-status']).toContain(`fwd-status=${status}`)
    expect(Number(headers.age)).toBeGreaterThanOrEqual(100)
    expect(scene.did()).toBe('stale')
  })

  test.each(
    failures.flatMap((failure) =>
      [
        ['its time is over', `${LIFETIME}, stale-if-error=30`],
        ['must-revalidate', `${control}, must-revalidate`],
        ['proxy-revalidate', `${control}, proxy-revalidate`],
        ['no-cache', `${control}, no-cache`],
        ['s-maxage', 's-maxage=60']
      ].map(([why, forbidding]) => ({ ...failure, why, forbidding }))
    )
  )('does not: $name, $why', async ({ fail, status, forbidding }) => {
    const { scene, door } = await behindDoor(forbidding as string)
    await fail(scene, door)
    const answered = await scene.get()
    expect(answered.status).toBe(status)
    expect(answered.text).not.toContain('old')
  })

  test.each([404, 410, 429, 501])('%i is an answer, not an error', async (status) => {
    const { scene } = await behindDoor(control)
    scene.answers(answer('gone', status))
    expect((await scene.get()).status).toBe(status)
  })

  test('an origin that is back is asked again within a second or so, and its answer is what all get', async () => {
    const { scene, door } = await behindDoor(control)
    await door.setMode({ kind: 'refuse' })
    for (let i = 0; i < 5; i++) expect((await scene.get()).text).toBe('old')
    await door.setMode({ kind: 'pass' })
    scene.answers(answer('new'))
    await until(async () => (await scene.get()).text === 'new')
    await scene.get()
    expect(scene.did()).toBe('hit')
  })

  test('s-maxage with a time of its own beside it allows it', async () => {
    const { scene, door } = await behindDoor('s-maxage=60, stale-if-error=50')
    await door.setMode({ kind: 'refuse' })
    expect((await scene.get()).text).toBe('old')
  })

  test('where the origin says nothing, the configuration does: for a day when nothing answers, for an error status never', async () => {
    const { scene, door } = await behindDoor(LIFETIME)
    scene.answers(answer('failed', 503))
    expect((await scene.get()).status).toBe(503)
    await door.setMode({ kind: 'refuse' })
    expect((await scene.get()).text).toBe('old')
    const strict = await behindDoor(LIFETIME, { cache: { stale: { ifUnreachable: '30s', ifError: '1h' } } })
    strict.scene.answers(answer('failed', 503))
    expect((await strict.scene.get()).text).toBe('old')
    await strict.door.setMode({ kind: 'refuse' })
    await until(async () => (await strict.scene.get()).status === 502)
  })
})
