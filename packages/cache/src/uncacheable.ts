import type { NotStoredReason } from './policy.ts'

/** Reasons that lie in the answer, and so will be there the next time too. Those that lie in one request say nothing about the URL. */
const lasting: ReadonlySet<NotStoredReason> = new Set(['status', 'no-store', 'private', 'set-cookie', 'vary-any', 'no-freshness', 'too-large'])

/** Keys remembered at most. */
const MAX_KEYS = 10_000
/** Longer keys are not remembered, so that a client with long URLs cannot fill the memory with them. Characters. */
const MAX_KEY_LENGTH = 2048
/** How long a key is remembered: the URL is looked at anew after that. Milliseconds. */
const TTL_MS = 10_000

interface Mark {
  readonly reason: NotStoredReason
  readonly untilMs: number
  /** Requests may go by the cache until then: the answer was to one that carried nothing of its client's, so no client can bring this about for others. */
  readonly bypass: boolean
}

/**
 * Keys whose answers were lately not to be stored. Requests for them do not wait for one another: each would get its own answer anyway.
 * Bounded; the oldest is forgotten first.
 */
export class Uncacheable {
  private readonly marks = new Map<string, Mark>()

  /** What is known of answers for `key`, if anything. */
  find(key: string, monotonicMs: number): Mark | undefined {
    const mark = this.marks.get(key)
    if (mark === undefined) return undefined
    if (monotonicMs < mark.untilMs) return mark
    this.marks.delete(key)
    return undefined
  }

  add(key: string, reason: NotStoredReason, monotonicMs: number, personal: boolean): void {
    if (!lasting.has(reason) || key.length > MAX_KEY_LENGTH) return
    if (this.marks.size >= MAX_KEYS) this.marks.delete(this.marks.keys().next().value as string)
    this.marks.set(key, { reason, untilMs: monotonicMs + TTL_MS, bypass: !personal && (reason === 'no-store' || reason === 'private') })
  }
}
