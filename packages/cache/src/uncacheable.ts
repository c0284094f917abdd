import { Recent } from './recent.ts'
import type { NotStoredReason } from './storability.ts'

/** Reasons that lie in the answer, and so will be there the next time too. Those that lie in one request say nothing about the URL. */
const lasting: ReadonlySet<NotStoredReason> = new Set(['status', 'no-store', 'private', 'set-cookie', 'vary-any', 'no-freshness', 'too-large'])

/** Keys remembered at most, of each kind. */
const MAX_KEYS = 10_000
/** Longer keys are not remembered, so that a client with long URLs cannot fill the memory with them. Characters. */
const MAX_KEY_LENGTH = 2048
/** How long a key is remembered: the URL is looked at anew after that. Milliseconds. */
const TTL_MS = 10_000

/** Reasons for which the next request is not worth the work of a fill. */
const hopeless: ReadonlySet<NotStoredReason> = new Set(['no-store', 'private', 'no-freshness', 'authorization'])

interface Mark {
  readonly reason: NotStoredReason
  readonly untilMs: number
  /** Requests may go by the cache until then. */
  readonly bypass: boolean
}

/** What is known of the request whose answer was not stored. */
export interface Asker {
  /** It carried credentials. */
  readonly authorized: boolean
  /** It carried something of its client's: credentials or cookies. */
  readonly personal: boolean
}

/**
 * Keys whose answers were lately not to be stored. Requests for them do not wait for one another: each would get its own answer anyway. Where the answer said
 * so plainly they go by the cache: after an answer to a request that carried nothing of its client's, all of them; after one to a request with credentials,
 * those with credentials, and only if it was no error. So no client can bring this about for others by what it sends.
 */
export class Uncacheable {
  private readonly forAll = new Recent<Mark>(MAX_KEYS)
  private readonly forAuthorized = new Recent<Mark>(MAX_KEYS)

  /** What is known of answers for `key`, if anything. */
  find(key: string, monotonicMs: number, authorized: boolean): Mark | undefined {
    return (authorized ? current(this.forAuthorized.get(key), monotonicMs) : undefined) ?? current(this.forAll.get(key), monotonicMs)
  }

  add(key: string, reason: NotStoredReason, status: number, monotonicMs: number, asker: Asker): void {
    if (key.length > MAX_KEY_LENGTH) return
    const untilMs = monotonicMs + TTL_MS
    if (asker.authorized && status < 400 && hopeless.has(reason)) this.forAuthorized.set(key, { reason, untilMs, bypass: true })
    if (lasting.has(reason)) this.forAll.set(key, { reason, untilMs, bypass: !asker.personal && hopeless.has(reason) })
  }
}

function current(mark: Mark | undefined, monotonicMs: number): Mark | undefined {
  return mark !== undefined && monotonicMs < mark.untilMs ? mark : undefined
}
