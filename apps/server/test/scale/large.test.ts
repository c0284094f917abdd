import { expect, test, vi } from 'vitest'
import type { Config } from '../../src/index.ts'
import { tempFolder } from '../helpers.ts'
import { Client } from './client.ts'
import { eventually, megabytes, startOriginProcess, startServerProcess, TEST_MS } from './parts.ts'

vi.setConfig({ testTimeout: TEST_MS })

/** Made by the origin as it goes, and kept by nobody. */
const OBJECT_BYTES = 2_000_000_000
const MOST_BYTES = 128_000_000
/** The slow one takes a piece each time the fast one has got so much further. */
const STEP_BYTES = 20_000_000

const tiers: Record<string, () => Partial<Config>> = {
  memory: () => ({ cache: { tiers: ['memory'], maxObjectSize: '3GB' } }),
  disk: () => ({ cache: { tiers: ['disk'], maxObjectSize: '3GB' }, stores: { disk: { directory: tempFolder(), maxSize: '80MB', maxEntrySize: '60MB' } } })
}

// Where the length is declared, the store refuses it at once and each client is served on its own. Where it is not, they share what comes until it is too much for
// the store; those who are further behind by then than the window reaches cannot be given the rest, and have to see that.
test.each([
  ['memory', ''],
  ['memory', '/chunked'],
  ['disk', '/chunked']
])('2 GB, larger than %s takes%s, with a reader that is stuck, a slow one and a fast one: the server grows by less than 128 MB', async (tier, kind) => {
  const origin = await startOriginProcess()
  const server = await startServerProcess(origin, tiers[tier]?.())
  const [stuck, slow, fast] = [await Client.open(server.port), await Client.open(server.port), await Client.open(server.port)]
  const path = `/${OBJECT_BYTES}${kind}/large`
  const startedMs = performance.now()
  const before = await server.memory()
  stuck.ask(path)
  slow.ask(path)
  await eventually(() => stuck.received > 0 && slow.received > 0)
  stuck.pause()
  slow.pause()
  fast.ask(path)
  let step = 0
  slow.onProgress = () => slow.pause()
  fast.onProgress = () => {
    if (fast.received < step) return
    step = fast.received + STEP_BYTES
    slow.resume()
  }
  await eventually(() => fast.state !== 'waiting' && fast.state !== 'reading')
  const after = await server.memory(false)
  const growth = after.maxRss - before.rss
  console.log(
    `${tier}${kind}: ${megabytes(growth)} more at most, in ${((performance.now() - startedMs) / 1000).toFixed(1)} s; the slow one had ${megabytes(slow.received)}, the stuck one ${megabytes(stuck.received)}; ${origin.asked.length} requests`
  )
  expect({ state: fast.state, received: fast.received }).toEqual({ state: 'complete', received: OBJECT_BYTES })
  expect(origin.asked.length).toBe(kind === '' ? 3 : 1)
  for (const { state, received } of [stuck, slow]) {
    expect(['reading', 'cut']).toContain(state)
    expect(received).toBeGreaterThan(0)
    expect(received).toBeLessThan(OBJECT_BYTES)
  }
  expect(growth).toBeLessThan(MOST_BYTES)
  if (kind === '') return
  slow.onProgress = undefined
  slow.resume()
  stuck.resume()
  await eventually(() => slow.state !== 'reading' && stuck.state !== 'reading')
  expect([slow.state, stuck.state]).toEqual(['cut', 'cut'])
})
