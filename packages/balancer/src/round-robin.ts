import type { Strategy } from './strategy.ts'
import type { TargetState } from './target.ts'

/**
 * Smooth weighted round robin: weights 5, 1, 1 give a a b a c a a, not a a a a a b c, so a heavy target gets no bursts.
 * At each turn every candidate earns its weight, the richest is chosen and pays what all have earned.
 * The algorithm of nginx's `ngx_http_upstream_get_round_robin_peer`: https://github.com/nginx/nginx/commit/52327e0627f49dbda1e8db695e63a4b0af4448b1
 */
export function roundRobin(): Strategy {
  const turns = new SmoothTurns()
  return { name: 'round-robin', pick: (candidates) => turns.next(candidates) }
}

/** The state of a smooth weighted round robin. A target that is not among the candidates for a while keeps what it has earned. */
export class SmoothTurns {
  /** By `TargetState.index`. */
  private readonly earned: number[] = []

  next(candidates: readonly TargetState[]): TargetState {
    const { earned } = this
    let richest = candidates[0] as TargetState
    let most = Number.NEGATIVE_INFINITY
    let sum = 0
    for (let i = 0; i < candidates.length; i++) {
      const candidate = candidates[i] as TargetState
      const now = (earned[candidate.index] ?? 0) + candidate.weight
      earned[candidate.index] = now
      sum += candidate.weight
      if (now > most) {
        most = now
        richest = candidate
      }
    }
    earned[richest.index] = most - sum
    return richest
  }
}
