import type { ProxyRequest } from './types.ts'

/**
 * The signal of work that no client's leaving ends, such as filling a cache. Shared: who sees this very object need not listen to it
 * (thousands of listeners on one signal would be a leak of their own).
 */
export const neverAborted: AbortSignal = new AbortController().signal

/** Told once when the client leaves before its answer was complete. The shape of an event listener object, so that it can listen to a signal too. */
export interface AbortListener {
  handleEvent(): void
}

/** What requests of this package have beside their signal. */
export interface AbortSource {
  readonly aborted: boolean
  addAbortListener(listener: AbortListener): void
  removeAbortListener(listener: AbortListener): void
}

/** Where a request keeps its `AbortSource`, across two copies of this package. */
export const abortSource: unique symbol = Symbol.for('@proxy/abortSource') as never

/** Whether the client has left. Like `request.signal.aborted`, without making a signal. */
export function isAborted(request: ProxyRequest): boolean {
  return (sourceOf(request) ?? request.signal).aborted
}

/**
 * Tells `listener` when the client leaves, until `offAbort`. The same as listening to `request.signal`, which hosts like node:http would have to make first:
 * an AbortController with a listener survives garbage collections long enough to cost a proxied request a fifth of its time.
 */
export function onAbort(request: ProxyRequest, listener: AbortListener): void {
  const source = sourceOf(request)
  if (source !== undefined) source.addAbortListener(listener)
  else if (request.signal !== neverAborted) request.signal.addEventListener('abort', listener)
}

export function offAbort(request: ProxyRequest, listener: AbortListener): void {
  const source = sourceOf(request)
  if (source !== undefined) source.removeAbortListener(listener)
  else if (request.signal !== neverAborted) request.signal.removeEventListener('abort', listener)
}

function sourceOf(request: ProxyRequest): AbortSource | undefined {
  return (request as { [abortSource]?: AbortSource | undefined })[abortSource]
}
