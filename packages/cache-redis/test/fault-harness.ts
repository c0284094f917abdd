import type { CacheStore } from '@proxy/cache'
import { sampleBytes, sampleMeta } from '@proxy/cache/conformance'
import { readAll } from '@proxy/pipeline'
import { startOrigin } from '@proxy/testing'
import { onTestFinished } from 'vitest'
import { digest, MAX } from './support.ts'

const KEYS = 40
const CLIENTS = 20

export const bodyFor = (key: string): Buffer => sampleBytes(500 + Number(key) * 4000, Number(key))

export interface Traffic {
  /** From the first byte asked for to the last one there, in milliseconds, in order of their end. */
  readonly times: number[]
  fromStore: number
  fromOrigin: number
}

export interface Harness {
  /** `requests` requests of 20 clients at once, each body compared by its hash. Calls `during` with the number done so far. Throws for a wrong body. */
  readonly run: (requests: number, during?: (done: number) => void) => Promise<Traffic>
}

/** The smallest cache there can be: get from the store, else from a real origin, then put in the background. Counts on the store for everything else. */
export async function createHarness(store: CacheStore): Promise<Harness> {
  const origin = await startOrigin((request, response) => response.end(bodyFor((request.url ?? '').slice(1))))
  onTestFinished(() => origin.close())

  const fetchOrigin = async (key: string): Promise<Buffer> => {
    const response = await fetch(`${origin.url}/${key}`)
    return Buffer.from(await response.arrayBuffer())
  }

  const handle = async (key: string, traffic: Traffic): Promise<Buffer> => {
    try {
      const entry = await store.get(key)
      if (entry !== undefined) {
        const body = await readAll(await entry.open(), MAX)
        traffic.fromStore++
        return body
      }
    } catch {
      // a store that cannot answer is a miss
    }
    const body = await fetchOrigin(key)
    traffic.fromOrigin++
    const writer = store.put(key, sampleMeta({ length: body.length }))
    writer.write(body)
    void writer.commit()
    return body
  }

  const run = async (requests: number, during?: (done: number) => void): Promise<Traffic> => {
    const traffic: Traffic = { times: [], fromStore: 0, fromOrigin: 0 }
    let started = 0
    const client = async (): Promise<void> => {
      while (started < requests) {
        const key = String(started++ % KEYS)
        const start = performance.now()
        const body = await handle(key, traffic)
        traffic.times.push(performance.now() - start)
        if (digest(body) !== digest(bodyFor(key))) throw new Error(`a wrong body for ${key}`)
        during?.(traffic.times.length)
      }
    }
    await Promise.all(Array.from({ length: CLIENTS }, client))
    return traffic
  }
  return { run }
}

/** A store that has nothing and keeps nothing: how fast it goes without one. */
export const noStore: CacheStore = {
  get: async () => undefined,
  put: () => ({ write: () => true, drained: async () => {}, commit: async () => false, abort() {} }),
  touch: async () => false,
  delete: async () => false,
  close: async () => {}
}

export const longest = (traffic: Traffic): number => Math.max(...traffic.times)
export const total = (traffic: Traffic): number => traffic.times.reduce((sum, time) => sum + time, 0)
