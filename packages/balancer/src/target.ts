import type { Target } from '@proxy/pipeline'

/** One place where requests may go, as configuration states it. */
export interface TargetOptions {
  /** `http:` or `https:`, host and port: `https://api.example.org`, `http://10.0.0.7:8080`. No path, no credentials. */
  readonly origin: string
  /** Name for logs, metrics and admin; unique in its balancer. Default: host and port of `origin`, the port left out where it is the scheme's own. */
  readonly name?: string
  /** Share of the work in proportion to the others. Finite, more than 0. Default 1. */
  readonly weight?: number
}

/**
 * - `available`: chosen by the strategy.
 * - `ejected`: failed too often; not chosen before `heldUntilMs`.
 * - `trial`: its time was over and one request is finding out whether it is back; no other before `heldUntilMs`.
 */
export type TargetStatus = 'available' | 'ejected' | 'trial'

/** What a balancer knows about one target, live: for strategies, metrics and admin pages. Read only. */
export interface TargetState extends Target {
  /** Position in `Balancer.targets`, for strategies that keep a number per target in an array. */
  readonly index: number
  readonly weight: number
  readonly status: TargetStatus
  /** Leases held now. */
  readonly active: number
  /** Failures since the last success; 0 where passive health is off. */
  readonly consecutiveFailures: number
  /** Monotonic milliseconds of the balancer's clock from which an ejected target may be tried (again). Without meaning while `available`. */
  readonly heldUntilMs: number
  /** Leases granted, ever. */
  readonly picks: number
  /** Leases released with each outcome, ever. */
  readonly successes: number
  readonly failures: number
  readonly aborts: number
  /** How often the target went from `available` to `ejected`, ever. */
  readonly ejections: number
}

/** The changing side of `TargetState`; only the balancer has hold of it. */
export class TrackedTarget implements TargetState {
  readonly origin: string
  readonly name: string
  readonly index: number
  readonly weight: number
  status: TargetStatus = 'available'
  active = 0
  consecutiveFailures = 0
  heldUntilMs = 0
  picks = 0
  successes = 0
  failures = 0
  aborts = 0
  ejections = 0

  /** Throws TypeError for an origin that is none, RangeError for a weight that is not finite and above 0. */
  constructor(options: TargetOptions, index: number) {
    const url = parseOrigin(options.origin)
    this.origin = url.origin
    this.name = options.name ?? url.host
    this.index = index
    this.weight = options.weight ?? 1
    if (this.name === '') throw new TypeError(`the target ${this.origin} has an empty name`)
    if (!Number.isFinite(this.weight) || this.weight <= 0) throw new RangeError(`the weight of ${this.name} must be finite and above 0, not ${this.weight}`)
  }
}

function parseOrigin(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const plain = url !== undefined && url.pathname === '/' && url.search === '' && url.hash === '' && url.username === '' && url.password === ''
  if (!plain || (url.protocol !== 'http:' && url.protocol !== 'https:')) throw new TypeError(`"${text}" is no origin: scheme http or https, host and port are wanted, such as http://10.0.0.7:8080`)
  return url
}

/** Targets from their configuration. Throws TypeError when two have one origin (that is what weights are for) or one name. */
export function trackTargets(options: readonly TargetOptions[]): TrackedTarget[] {
  const origins = new Set<string>()
  const names = new Set<string>()
  return options.map((option, index) => {
    const target = new TrackedTarget(option, index)
    if (origins.has(target.origin)) throw new TypeError(`the target ${target.origin} is listed twice: give it a weight instead`)
    if (names.has(target.name)) throw new TypeError(`two targets are named "${target.name}": give each a name of its own`)
    origins.add(target.origin)
    names.add(target.name)
    return target
  })
}
