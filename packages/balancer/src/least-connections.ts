import { SmoothTurns } from './round-robin.ts'
import type { Strategy } from './strategy.ts'
import type { TargetState } from './target.ts'

/**
 * The target with the fewest leases held in proportion to its weight. Those that are equal take smooth weighted turns, so that
 * requests which never overlap are still divided by weight, and nobody is left out.
 * As nginx's `least_conn` does: https://nginx.org/en/docs/http/ngx_http_upstream_module.html#least_conn
 */
export function leastConnections(): Strategy {
  const turns = new SmoothTurns()
  // Reused at every pick: at most one entry per target.
  const tied: TargetState[] = []
  return {
    name: 'least-connections',
    pick(candidates) {
      tied.length = 0
      let least = candidates[0] as TargetState
      tied.push(least)
      for (let i = 1; i < candidates.length; i++) {
        const candidate = candidates[i] as TargetState
        // active / weight compared without the division, which is not exact.
        const difference = candidate.active * least.weight - least.active * candidate.weight
        if (difference > 0) continue
        if (difference < 0) {
          tied.length = 0
          least = candidate
        }
        tied.push(candidate)
      }
      return tied.length === 1 ? least : turns.next(tied)
    }
  }
}
