import { Agent, get as httpGet } from 'node:http'
import { sampleBytes } from '@proxy/cache/conformance'
import { readAll } from '@proxy/pipeline'
import { type Origin, startOrigin } from '@proxy/testing'
import type { S3Store } from '../src/index.ts'
import { digest, meta } from './support.ts'

interface Traffic {
  /** Twenty clients make `requests` requests together. Resolves to what they saw. */
  run(requests: number): Promise<{ errors: number; fromStore: number; slowestMs: number }>
  stop(): Promise<void>
}

const CLIENTS = 20
/** Their bodies are small, of one block, of many, and empty. */
const KEYS = 40

/**
 * What a cache does with a store, at its simplest: from the store within its deadline, else from the origin and then put in the background. A client error is
 * anything but the right body, compared by hash.
 */
export async function startTraffic(store: S3Store): Promise<Traffic> {
  const bodies = Array.from({ length: KEYS }, (_, i) => sampleBytes([800, 50_000, 300_000, 0][i % 4] as number, i))
  const hashes = bodies.map(digest)
  const origin: Origin = await startOrigin((request, response) => response.end(bodies[Number(request.url?.slice(1))]))
  const agent = new Agent({ keepAlive: true })
  const ask = (key: number): Promise<Buffer> =>
    new Promise((resolve, reject) => {
      httpGet(`${origin.url}/${key}`, { agent }, (answer) => resolve(readAll(answer, 1_000_000))).on('error', reject)
    })

  async function fromStore(key: number): Promise<Buffer | undefined> {
    try {
      const entry = await store.get(`/${key}`)
      return entry && (await readAll(await entry.open(), 1_000_000))
    } catch {
      // A store that cannot answer is a miss.
      return undefined
    }
  }

  let next = 0
  return {
    async run(requests) {
      const seen = { errors: 0, fromStore: 0, slowestMs: 0 }
      let left = requests
      const client = async (): Promise<void> => {
        while (left-- > 0) {
          const key = (next = (next * 17 + 5) % KEYS)
          const started = performance.now()
          let body = await fromStore(key)
          if (body === undefined) {
            body = await ask(key)
            const writer = store.put(`/${key}`, meta())
            writer.write(body)
            void writer.commit()
          } else seen.fromStore++
          seen.slowestMs = Math.max(seen.slowestMs, performance.now() - started)
          if (digest(body) !== hashes[key]) seen.errors++
        }
      }
      const outcomes = await Promise.allSettled(Array.from({ length: CLIENTS }, client))
      seen.errors += outcomes.filter((outcome) => outcome.status === 'rejected').length
      return seen
    },
    async stop() {
      agent.destroy()
      await origin.close()
    }
  }
}
