import { expect, test, vi } from 'vitest'
import { tempFolder } from '../helpers.ts'
import { openClients, states } from './client.ts'
import { eventually, megabytes, startOriginProcess, startServerProcess, TEST_MS, untilInFlight } from './parts.ts'

vi.setConfig({ testTimeout: TEST_MS })

const CLIENTS = 1000
const OBJECT_BYTES = 5_000_000
const BLOCK_BYTES = 64 * 1024

// Three times the object, from memory: over a server that has the thousand connections open. `external` has the array buffers in it.
test.each([
  { stopping: 0, pieces: 20, tier: 'memory' as const },
  { stopping: 10, pieces: 20, tier: 'memory' as const },
  { stopping: 10, pieces: 1, tier: 'memory' as const },
  { stopping: 10, pieces: 1, tier: 'disk' as const }
])('1000 clients, one key that nobody has yet: one request, the right bytes for all, memory within bounds (tier $tier, $stopping stop reading, pieces: $pieces)', async (variant) => {
  const { stopping, pieces, tier } = variant
  const origin = await startOriginProcess()
  const server = await startServerProcess(origin, { cache: { tiers: [tier] }, stores: { ...(tier === 'disk' && { disk: { directory: tempFolder(), maxSize: '40MB', maxEntrySize: '10MB' } }) } })
  const clients = await openClients(server.port, CLIENTS)
  const stopped = clients.slice(CLIENTS - stopping)
  const readers = clients.slice(0, CLIENTS - stopping)
  const path = `/${OBJECT_BYTES}/once`
  origin.limit(path, -1)
  const before = await server.memory()
  for (const client of stopped) client.pause()
  for (const client of clients) client.ask(path)
  await untilInFlight(server, CLIENTS)

  let growth = { heap: 0, external: 0 }
  const measure = async (): Promise<void> => {
    const { heapUsed, external } = await server.memory()
    const now = { heap: heapUsed - before.heapUsed, external: external - before.external }
    if (now.heap + now.external > growth.heap + growth.external) growth = now
  }
  await measure()
  // Memory is measured twenty times, as the readers get on. The next piece comes when all of them have the one before.
  const steps = 20
  for (let step = 1; step <= steps; step++) {
    const due = (OBJECT_BYTES / steps) * step
    origin.limit(path, Math.ceil((step * pieces) / steps) * (OBJECT_BYTES / pieces))
    await eventually(() => readers.reduce((sum, { received }) => sum + received, 0) >= due * readers.length || readers.some(({ state }) => state === 'cut'))
    await measure()
  }
  await eventually(() => readers.every(({ state }) => state !== 'reading'))
  await measure()
  console.log(`${tier}, ${stopping} stopped, ${pieces} pieces: ${megabytes(growth.heap + growth.external)} more at most (heap ${megabytes(growth.heap)}, outside ${megabytes(growth.external)})`)
  expect(states(readers)).toEqual({ complete: readers.length })
  expect(stopped.every(({ received }) => received < OBJECT_BYTES)).toBe(true)
  // From memory all read the same bytes; from the disk each holds a block of its own where it is.
  expect(growth.heap + growth.external).toBeLessThan(3 * OBJECT_BYTES + (tier === 'disk' ? CLIENTS * BLOCK_BYTES : 0))

  for (const client of stopped) client.resume()
  await eventually(() => stopped.every(({ state }) => state !== 'waiting' && state !== 'reading'))
  expect(states(clients)).toEqual({ complete: CLIENTS })
  expect(origin.asked).toEqual([path])
  expect(clients.filter(({ cacheStatus }) => cacheStatus.includes('; collapsed')).length).toBe(CLIENTS - 1)
})
