import type { Decision, Policy } from './limiter.ts'

// https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/ (revision 11). Names of policies need no escaping in a String of RFC 9651.

/** RateLimit-Policy, section 3: `"default";q=100;w=60`. The window is rounded up to whole seconds, as the field knows no others. */
export function policyField({ name, limit, windowMs }: Policy): string {
  return `"${name}";q=${Math.floor(limit)};w=${seconds(windowMs)}`
}

/**
 * RateLimit, section 4: `"default";r=50;t=30`. `t` of a denied take is Retry-After (which must not be earlier than `t`, section 6). Of an allowed one it is the time that
 * `r` lasts at the rate of the policy, so that r/t is never above that rate (section 8.5) and nobody who keeps to it waits for nothing.
 */
export function limitField(decision: Decision): string {
  const { policy, remaining, allowed, retryAfterMs } = decision
  const paceMs = allowed ? Math.max(retryAfterMs, (remaining * policy.windowMs) / policy.limit) : retryAfterMs
  return Number.isFinite(paceMs) ? `"${policy.name}";r=${remaining};t=${seconds(paceMs)}` : `"${policy.name}";r=${remaining}`
}

/** Whole seconds, rounded up, at least 1. */
export function seconds(ms: number): number {
  return Math.max(1, Math.ceil(ms / 1000))
}
