import { Recent } from './recent.ts'
import type { NotStoredReason } from './storability.ts'

/** Reasons that lie in the answer, and so will be there the next time too. Those that lie in one request say nothing about the URL. */
const lasting: ReadonlySet<NotStoredReason> = new Set(['status', 'no-store', 'private', 'set-cookie', 'vary-any', 'no-freshness', 'too-large'])

/** Keys remembered at most, of each kind of client. */
const MAX_KEYS = 10_000
/** Longer keys are not remembered, so that a client with long URLs cannot fill the memory with them. Characters. */
const MAX_KEY_LENGTH = 2048
/** How long a key is remembered: the URL is looked at anew after that. Milliseconds. */
const TTL_MS = 10_000

/** Reasons for which the next request is not worth the work of a fill. */
const hopeless: ReadonlySet<NotStoredReason> = new Set(['no-store', 'private', 'no-freshness', 'authorization'])

export interface Mark {
  readonly reason: NotStoredReason
  readonly untilMs: number
  /** Requests may go by the cache until then, as long as the answers that they get are of the same kind. */
  readonly bypass: boolean
}

/** What a request carries of its client's: what is said to those with credentials, or with cookies, says little about the others. */
export type ClientKind = 'anonymous' | 'cookie' | 'authorized'

/**
 * Keys whose answers were lately not to be stored. Requests for them do not wait for one another: each would get its own answer anyway. Where an answer said
 * so plainly, they go by the cache. Failures of the origin say nothing.
 *
 * A client can have an answer made that is not to be stored, by a field that the origin does not like. So a mark ends with the first answer that could have been
 * stored, whoever gets it, and counts only for clients of the same kind.
 */
export class Uncacheable {
  private readonly marks: Readonly<Record<ClientKind, Recent<Mark>>> = { anonymous: new Recent(MAX_KEYS), cookie: new Recent(MAX_KEYS), authorized: new Recent(MAX_KEYS) }

  /** Nothing is known of any key for this kind of client. */
  isEmpty(kind: ClientKind): boolean {
    return this.marks[kind].isEmpty
  }

  /** What is known of answers for `key`, if anything. */
  find(key: string, kind: ClientKind, monotonicMs: number): Mark | undefined {
    const mark = this.marks[kind].get(key)
    return mark !== undefined && monotonicMs < mark.untilMs ? mark : undefined
  }

  add(key: string, kind: ClientKind, reason: NotStoredReason, status: number, monotonicMs: number): void {
    if (status >= 500 || key.length > MAX_KEY_LENGTH || !(lasting.has(reason) || (reason === 'authorization' && kind === 'authorized'))) return
    this.marks[kind].set(key, { reason, untilMs: monotonicMs + TTL_MS, bypass: status < 400 && hopeless.has(reason) })
  }

  /** An answer came that may be stored. */
  forget(key: string): void {
    for (const kind in this.marks) this.marks[kind as ClientKind].delete(key)
  }
}
