import type { Strategy } from './strategy.ts'
import type { TargetState } from './target.ts'

/** Independent draws, each target with the probability weight / sum of weights. `rng` gives numbers in [0, 1), default `Math.random`. */
export function random(rng: () => number = Math.random): Strategy {
  return {
    name: 'random',
    pick(candidates) {
      let sum = 0
      for (let i = 0; i < candidates.length; i++) sum += (candidates[i] as TargetState).weight
      let left = rng() * sum
      const last = candidates.length - 1
      for (let i = 0; i < last; i++) {
        const candidate = candidates[i] as TargetState
        left -= candidate.weight
        if (left < 0) return candidate
      }
      // Also where rounding has left a little more than nothing.
      return candidates[last] as TargetState
    }
  }
}
