import type { Handler, Middleware } from './types.ts'

/** Joins layers, outermost first: `compose(a, b)(handler)` is `a(b(handler))`. */
export function compose(...layers: readonly Middleware[]): Middleware {
  return (handler) => {
    let next: Handler = handler
    for (let i = layers.length - 1; i >= 0; i--) next = (layers[i] as Middleware)(next)
    return next
  }
}
