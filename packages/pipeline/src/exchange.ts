/** Names a slot of type `T` in an `Exchange`. */
export interface ExchangeKey<T> {
  readonly name: string
  /** Type only; never present. */
  readonly __value?: T
}

export function createExchangeKey<T>(name: string): ExchangeKey<T> {
  return { name }
}

/**
 * The record of one exchange, from request to answer: slots that inner layers write and that logs, metrics and tracing read afterwards.
 * The opposite direction of `Context`. One record per client request, shared by everything derived from it; never sent anywhere.
 */
export class Exchange {
  /** Identifies the exchange in logs and towards the origin; empty until a layer gives one. */
  requestId = ''
  private slots: unknown[] | undefined

  get<T>(key: ExchangeKey<T>): T | undefined {
    const slots = this.slots
    if (slots === undefined) return undefined
    for (let i = 0; i < slots.length; i += 2) if (slots[i] === key) return slots[i + 1] as T
    return undefined
  }

  set<T>(key: ExchangeKey<T>, value: T): void {
    const slots = this.slots
    if (slots === undefined) {
      this.slots = [key, value]
      return
    }
    for (let i = 0; i < slots.length; i += 2) {
      if (slots[i] === key) {
        slots[i + 1] = value
        return
      }
    }
    slots.push(key, value)
  }
}

/** What the cache did: `hit`, `miss`, `revalidated`, `stale`, `collapsed`, `negative-hit`, `bypass`. */
export const cacheResult: ExchangeKey<string> = createExchangeKey('cacheResult')
/** Name of the upstream target that was asked last. */
export const upstreamName: ExchangeKey<string> = createExchangeKey('upstreamName')
/** Status of the upstream's answer, or the code of the error it ended in. */
export const upstreamResult: ExchangeKey<number | string> = createExchangeKey('upstreamResult')
/** How many times an upstream was asked for this exchange. */
export const upstreamAttempts: ExchangeKey<number> = createExchangeKey('upstreamAttempts')
