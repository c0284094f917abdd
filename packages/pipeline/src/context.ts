/** Names a value of type `T` in a `Context`. Compared by identity: two keys of one name do not meet. */
export interface ContextKey<T> {
  readonly name: string
  /** Type only; never present. */
  readonly __value?: T
}

export function createContextKey<T>(name: string): ContextKey<T> {
  return { name }
}

/** Immutable set of typed values, passed inwards with a request. Made for a handful of entries: a lookup walks them. */
export class Context {
  static readonly empty: Context = new Context(undefined, undefined, undefined)

  private readonly parent: Context | undefined
  private readonly key: ContextKey<unknown> | undefined
  private readonly value: unknown

  private constructor(parent: Context | undefined, key: ContextKey<unknown> | undefined, value: unknown) {
    this.parent = parent
    this.key = key
    this.value = value
  }

  /** The value set last for `key`, or undefined. */
  get<T>(key: ContextKey<T>): T | undefined {
    return this.key === key ? (this.value as T) : this.parent?.get(key)
  }

  /** A context with one more value. */
  with<T>(key: ContextKey<T>, value: T): Context {
    return new Context(this, key as ContextKey<unknown>, value)
  }
}

/** Who the request was authenticated as. Set by an authenticating layer; read by limits, the cache (such a request counts as carrying Authorization) and logs. */
export interface Principal {
  readonly id: string
  /** How it was shown: `bearer`, `basic`, `api-key`. */
  readonly scheme: string
}
export const principal: ContextKey<Principal> = createContextKey('principal')

/** Where a balancing layer wants the request to go. */
export interface Target {
  /** Origin of the target, scheme, host and port: `https://api.example.org` or `http://10.0.0.7:8080`. No path. */
  readonly origin: string
  /** Name for logs and metrics; the origin's host and port when not given. */
  readonly name: string
}
export const target: ContextKey<Target> = createContextKey('target')
