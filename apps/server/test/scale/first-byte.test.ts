import { expect, test, vi } from 'vitest'
import { tempFolder } from '../helpers.ts'
import { Client, openClients, states } from './client.ts'
import { eventually, type OriginProcess, type ServerProcess, startOriginProcess, startServerProcess, TEST_MS, untilInFlight } from './parts.ts'

vi.setConfig({ testTimeout: TEST_MS })

/** What is promised, for one joiner; a machine that is busy may take ten times as long. */
const PROMISED_MS = 10
const MARGIN = 10
const CLIENTS = 1000
/** The origin has sent so much of the body, and holds the rest back. */
const PART_BYTES = 16_384

let origin: OriginProcess
let server: ServerProcess

async function start(tier: 'memory' | 'disk'): Promise<void> {
  origin = await startOriginProcess()
  server = await startServerProcess(origin, { cache: { tiers: [tier] }, stores: { ...(tier === 'disk' && { disk: { directory: tempFolder(), maxSize: '10MB' } }) } })
}

/** A path of which the server has the beginning, with the client that it was fetched for. */
async function begun(name: string): Promise<{ path: string; leader: Client }> {
  const path = `/200000/${name}`
  origin.limit(path, PART_BYTES)
  const leader = await Client.open(server.port)
  leader.ask(path)
  await eventually(() => leader.received === PART_BYTES)
  return { path, leader }
}

/** A small answer that is stored. */
async function small(): Promise<string> {
  const path = '/1000/small'
  const client = await Client.open(server.port)
  client.ask(path)
  await eventually(() => client.state === 'complete')
  client.leave()
  return path
}

/** Milliseconds from the request to the first byte of the body. */
async function firstByteMs(client: Client, path: string): Promise<number> {
  const arrived = Promise.withResolvers<void>()
  client.onProgress = () => {
    if (client.firstByteMs > 0) arrived.resolve()
  }
  const startedMs = performance.now()
  client.ask(path)
  await arrived.promise
  client.onProgress = undefined
  return client.firstByteMs - startedMs
}

/** The same of all of them at once: when the last one has it. */
async function lastByteMs(clients: readonly Client[], path: string): Promise<number> {
  const startedMs = performance.now()
  for (const client of clients) client.ask(path)
  await eventually(() => clients.every((client) => client.firstByteMs > 0))
  return Math.max(...clients.map((client) => client.firstByteMs)) - startedMs
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] as number

// The disk store had nothing of a write for those who follow it before a quarter of a megabyte had come.
test.each(['memory', 'disk'] as const)('one who joins has the first byte within 10 ms (tier %s)', async (tier) => {
  await start(tier)
  const hit = await small()
  const hits: number[] = []
  const joined: number[] = []
  for (let i = 0; i < 30; i++) {
    const { path } = await begun(`one/${i}`)
    const client = await Client.open(server.port)
    hits.push(await firstByteMs(client, hit))
    joined.push(await firstByteMs(client, path))
    origin.release(path)
    await eventually(() => client.state === 'complete')
    expect(client.cacheStatus).toContain('; collapsed')
  }
  const [joinedMs, hitMs] = [median(joined), median(hits)]
  console.log(`${tier}, first byte: joiner ${joinedMs.toFixed(2)} ms, slowest of 30 ${Math.max(...joined).toFixed(2)} ms; a small hit ${hitMs.toFixed(2)} ms`)
  expect(joinedMs).toBeLessThan(MARGIN * (PROMISED_MS + hitMs))
})

test('of 1000 who join what is on its way, and of 1000 who wait for it, the last has the first byte as soon as 1000 small hits take, and 10 ms', async () => {
  await start('memory')
  const hit = await small()
  const clients = await openClients(server.port, CLIENTS)
  await lastByteMs(clients, hit)
  const hitsMs = await lastByteMs(clients, hit)

  const { path } = await begun('many')
  const joinedMs = await lastByteMs(clients, path)
  origin.release(path)
  await eventually(() => clients.every(({ state }) => state !== 'reading'))
  expect(states(clients)).toEqual({ complete: CLIENTS })

  const awaited = '/200000/awaited'
  origin.limit(awaited, -1)
  for (const client of clients) client.ask(awaited)
  await untilInFlight(server, CLIENTS)
  origin.limit(awaited, PART_BYTES)
  await eventually(() => clients.every(({ received }) => received === PART_BYTES))
  const arrivals = clients.map((client) => client.firstByteMs)
  const awaitedMs = Math.max(...arrivals) - Math.min(...arrivals)
  origin.release(awaited)
  await eventually(() => clients.every(({ state }) => state !== 'reading'))

  console.log(`last first byte of 1000: joining ${joinedMs.toFixed(1)} ms, waiting ${awaitedMs.toFixed(1)} ms after the first; small hits ${hitsMs.toFixed(1)} ms`)
  expect(states(clients)).toEqual({ complete: CLIENTS })
  expect(origin.asked).toEqual([hit, path, awaited])
  expect(joinedMs).toBeLessThan(MARGIN * (PROMISED_MS + hitsMs))
  expect(awaitedMs).toBeLessThan(MARGIN * (PROMISED_MS + hitsMs))
})
