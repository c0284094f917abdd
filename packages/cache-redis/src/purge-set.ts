import { randomUUID } from 'node:crypto'
import type { ChainableCommander } from 'ioredis'
import type { GuardedClient } from './guarded-client.ts'
import { ADD_PURGES } from './purge-scripts.ts'

/** Members read, and purges written or removed, with one command: so few that nobody else waits for it. */
const BATCH = 500

/** Members and scores, in turn or (RESP3) in pairs. */
type Scores = readonly (string | number | readonly (string | number)[])[]

/** What was found at and behind a place in the set. */
export interface PurgePage {
  /** Undefined where there is no set. */
  readonly generation: string | undefined
  /** Members and their scores, the first of them at that place or behind it. */
  readonly members: readonly { readonly text: string; readonly score: number }[]
  /** There may be more. */
  readonly isFull: boolean
  /** Members of the whole set. */
  readonly count: number
  /** Clock of Redis, milliseconds since 1970. */
  readonly wallMs: number
}

/** The sorted set that logs share, see purge-scripts.ts. Rejects with the errors of errors.ts. */
export class PurgeSet {
  private readonly guard: GuardedClient
  private readonly key: string

  constructor(guard: GuardedClient, key: string) {
    this.guard = guard
    this.key = key
  }

  /** What lies at `score` and behind it. */
  async read(score: number): Promise<PurgePage> {
    const { key } = this
    const [generations, found, count, time] = (await this.pipelined((pipeline) =>
      pipeline.zrangebyscore(key, 0, 0).zrangebyscore(key, score, '+inf', 'WITHSCORES', 'LIMIT', 0, BATCH).zcard(key).time()
    )) as [string[], Scores, number, [string | number, string | number]]
    const members: { text: string; score: number }[] = []
    const flat = found.flat()
    for (let i = 0; i + 1 < flat.length; i += 2) members.push({ text: flat[i] as string, score: Number(flat[i + 1]) })
    return { generation: generations[0], members, isFull: members.length === BATCH, count, wallMs: Number(time[0]) * 1000 + Math.ceil(Number(time[1]) / 1000) }
  }

  async add(texts: readonly string[]): Promise<void> {
    for (let at = 0; at < texts.length; at += BATCH) {
      await this.guard.run((client) => client.eval(ADD_PURGES, 1, this.key, randomUUID(), ...texts.slice(at, at + BATCH)))
    }
  }

  async remove(texts: readonly string[]): Promise<void> {
    for (let at = 0; at < texts.length; at += BATCH) await this.guard.run((client) => client.zrem(this.key, ...texts.slice(at, at + BATCH)))
  }

  private pipelined(fill: (pipeline: ChainableCommander) => ChainableCommander): Promise<unknown[]> {
    return this.guard.run(async (client) => {
      const replies = await fill(client.pipeline()).exec()
      return (replies ?? []).map(([error, value]) => {
        if (error !== null) throw error
        return value
      })
    })
  }
}
