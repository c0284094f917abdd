import { type Clock, systemClock } from '@proxy/pipeline'
import { type HealthChange, PassiveHealth, type PassiveHealthOptions, type StateChangeReason, type Use } from './health.ts'
import type { Lease, Outcome } from './lease.ts'
import { createStrategy, type Strategy, type StrategyName } from './strategy.ts'
import { type TargetOptions, type TargetState, type TargetStatus, type TrackedTarget, trackTargets } from './target.ts'

export interface BalancerOptions {
  /** May be none: `pick` then gives undefined. */
  readonly targets: readonly TargetOptions[]
  /** A name, or a strategy of your own. Default `round-robin`. */
  readonly strategy?: StrategyName | Strategy
  /** When failing targets are left out. `false`: never. */
  readonly passiveHealth?: PassiveHealthOptions | false
  /** Default the system's. */
  readonly clock?: Clock
  /** Numbers in [0, 1) for the strategy `random`. Default `Math.random`. */
  readonly random?: () => number
}

export interface PickHint {
  /** Targets that must not be chosen: those tried before. */
  readonly exclude?: ReadonlySet<TargetState>
}

/** A target became usable or stopped being it. */
export interface StateChange {
  readonly target: TargetState
  readonly from: TargetStatus
  readonly to: TargetStatus
  readonly reason: StateChangeReason
  /** `Balancer.degraded` after the change. */
  readonly degraded: boolean
}

/** Chooses targets and counts who uses them. No HTTP, no I/O, no timers: time is read when something is picked or released. */
export interface Balancer {
  /** In the order of configuration, live. */
  readonly targets: readonly TargetState[]
  readonly strategy: Strategy
  /** No target is available: whatever is picked is on trial or a guess. Never so with no targets at all. */
  readonly degraded: boolean
  /**
   * The next target that is available or whose trial is due, by the strategy. When none of those is left, one of the others (fail open: an ejected target may
   * answer, refusing everybody certainly does not). Undefined when `hint.exclude` leaves no target.
   */
  pick(hint?: PickHint): Lease | undefined
  /** `listener` is called synchronously at each change, and must not throw. Returns how to stop it. */
  onStateChange(listener: (change: StateChange) => void): () => void
}

/** Throws TypeError or RangeError for options that cannot be meant. */
export function createBalancer(options: BalancerOptions): Balancer {
  return new PoolBalancer(options)
}

class PoolBalancer implements Balancer {
  readonly targets: readonly TrackedTarget[]
  readonly strategy: Strategy
  private readonly clock: Clock
  private readonly health: PassiveHealth | undefined
  private readonly listeners = new Set<(change: StateChange) => void>()
  /** Those available or due for a trial; made anew when that changes, so that a pick allocates nothing but its lease. */
  private ready: readonly TrackedTarget[]
  /** When the next of the others is due. Infinity while there is none, so that the clock is not read. */
  private nextDueMs = Number.POSITIVE_INFINITY
  private availableCount: number

  constructor(options: BalancerOptions) {
    const { strategy = 'round-robin', passiveHealth = {} } = options
    this.targets = trackTargets(options.targets)
    this.strategy = typeof strategy === 'string' ? createStrategy(strategy, options.random) : strategy
    this.clock = options.clock ?? systemClock
    this.health = passiveHealth === false ? undefined : new PassiveHealth(passiveHealth, this.clock, (change) => this.changed(change))
    this.ready = this.targets
    this.availableCount = this.targets.length
  }

  get degraded(): boolean {
    return this.availableCount === 0 && this.targets.length > 0
  }

  pick(hint?: PickHint): Lease | undefined {
    if (this.nextDueMs !== Number.POSITIVE_INFINITY && this.clock.monotonicMs() >= this.nextDueMs) this.sort()
    const exclude = hint?.exclude
    let candidates = without(this.ready, exclude)
    const failOpen = candidates.length === 0
    if (failOpen) {
      candidates = without(this.targets, exclude)
      if (candidates.length === 0) return undefined
    }
    // What a strategy answers is one of the candidates, and those are all ours.
    const target = this.strategy.pick(candidates) as TrackedTarget
    const lease = new PoolLease(target, this.health, failOpen)
    if (target.status !== 'available' && !failOpen) this.health?.startTrial(lease)
    return lease
  }

  onStateChange(listener: (change: StateChange) => void): () => void {
    this.listeners.add(listener)
    return () => {
      this.listeners.delete(listener)
    }
  }

  private changed(change: HealthChange): void {
    this.sort()
    if (this.listeners.size === 0) return
    const { degraded } = this
    for (const listener of this.listeners) listener({ ...change, degraded })
  }

  private sort(): void {
    const nowMs = this.clock.monotonicMs()
    const ready: TrackedTarget[] = []
    let nextDueMs = Number.POSITIVE_INFINITY
    let availableCount = 0
    for (const target of this.targets) {
      if (target.status === 'available') availableCount++
      if (target.status === 'available' || target.heldUntilMs <= nowMs) ready.push(target)
      else if (target.heldUntilMs < nextDueMs) nextDueMs = target.heldUntilMs
    }
    this.ready = ready
    this.nextDueMs = nextDueMs
    this.availableCount = availableCount
  }
}

function without(targets: readonly TrackedTarget[], exclude: ReadonlySet<TargetState> | undefined): readonly TrackedTarget[] {
  return exclude === undefined || exclude.size === 0 ? targets : targets.filter((target) => !exclude.has(target))
}

class PoolLease implements Lease, Use {
  readonly tracked: TrackedTarget
  readonly degraded: boolean
  readonly ejections: number
  private readonly health: PassiveHealth | undefined
  private held = true

  constructor(target: TrackedTarget, health: PassiveHealth | undefined, degraded: boolean) {
    this.tracked = target
    this.degraded = degraded
    this.ejections = target.ejections
    this.health = health
    target.active++
    target.picks++
  }

  get target(): TargetState {
    return this.tracked
  }

  release(outcome: Outcome): void {
    if (!this.held) return
    this.held = false
    const target = this.tracked
    target.active--
    if (outcome === 'success') target.successes++
    else if (outcome === 'failure') target.failures++
    else target.aborts++
    this.health?.ended(this, outcome)
  }
}
