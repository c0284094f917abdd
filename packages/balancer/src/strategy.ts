import { leastConnections } from './least-connections.ts'
import { random } from './random.ts'
import { roundRobin } from './round-robin.ts'
import type { TargetState } from './target.ts'

/**
 * Decides which target is next. Knows nothing of HTTP, health or time: those that may not be chosen are not among the candidates.
 * An instance belongs to one balancer.
 */
export interface Strategy {
  /** For logs and admin: `round-robin`. */
  readonly name: string
  /**
   * One of `candidates`, which are never none, always in the order of `Balancer.targets`, and not to be changed or kept.
   * Called once per pick, synchronously; a throw passes through `Balancer.pick`.
   */
  pick(candidates: readonly TargetState[]): TargetState
}

/** `round-robin`: smooth weighted round robin. `random`: weighted random. `least-connections`: fewest leases held in proportion to weight. */
export type StrategyName = 'round-robin' | 'random' | 'least-connections'

/** The strategy of that name. Throws TypeError for a name that is none. `rng` is for `random`. */
export function createStrategy(name: StrategyName, rng: (() => number) | undefined): Strategy {
  switch (name) {
    case 'round-robin':
      return roundRobin()
    case 'random':
      return random(rng)
    case 'least-connections':
      return leastConnections()
    default:
      throw new TypeError(`"${String(name)}" is no balancing strategy: round-robin, random or least-connections`)
  }
}
