import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'

/** What the compatibility layer of HTTP/2 has in addition; it lacks `destroyed`. */
interface Http2Side {
  readonly stream?: { readonly destroyed: boolean }
}

export function isHttp2(outgoing: ServerResponse): boolean {
  return outgoing.req.httpVersionMajor >= 2
}

/** Whether a response waits, pipelined, behind another on its connection: node:http gives it the socket when its turn comes. */
export function isQueued(outgoing: ServerResponse): boolean {
  return outgoing.socket === null
}

/** Whether nothing more can reach the client on this response: it was sent, or the connection or stream is closed. */
export function isClosed(outgoing: ServerResponse): boolean {
  return outgoing.destroyed || (outgoing as Http2Side).stream?.destroyed === true || (isQueued(outgoing) && outgoing.req.socket.destroyed)
}

/** Listeners of the queued responses of a connection; one for the socket, which warns of more than ten. */
const queues = new WeakMap<Socket, Set<() => void>>()

/** Calls `listener` when a response that is not closed yet closes: sent, or its connection lost. May call it twice. */
export function onClosed(outgoing: ServerResponse, listener: () => void): void {
  outgoing.on('close', listener)
  if (!isQueued(outgoing)) return
  // Node before 26 does not tell a queued response that its connection is gone.
  const { socket } = outgoing.req
  let queue = queues.get(socket)
  if (queue === undefined) {
    const made = new Set<() => void>()
    queue = made
    queues.set(socket, made)
    socket.once('close', () => {
      for (const waiting of made) waiting()
    })
  }
  queue.add(listener)
  outgoing.once('socket', () => queues.get(socket)?.delete(listener))
}

/** Breaks off a response that has begun, so that no client takes what it got for the whole. `cause` is not sent. */
export function cut(outgoing: ServerResponse, cause: Error): void {
  if (isHttp2(outgoing)) {
    // With an error, RST_STREAM says INTERNAL_ERROR; without one NO_ERROR, which reads like an end.
    outgoing.destroy(cause)
    return
  }
  const { socket } = outgoing
  if (socket === null) {
    // The answer in front of it is left to end: the connection goes when this one's turn comes.
    outgoing.once('socket', (assigned) => assigned.destroy())
    outgoing.destroy()
    return
  }
  // RFC 9112 section 8: where only the close of the connection ends the body, an orderly close would say that it is complete.
  // (TLS says so by itself, and a local socket cannot be reset.)
  if (outgoing.req.httpVersion === '1.0' && !('encrypted' in socket) && socket.remoteAddress !== undefined) socket.resetAndDestroy()
  outgoing.destroy()
}
