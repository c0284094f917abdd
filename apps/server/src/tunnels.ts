import { type IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { createRequest, errorResponse, ProxyError } from '@proxy/pipeline'
import type { LogRequest } from './access-log.ts'
import { isBusy } from './connections.ts'
import { startedMs } from './trace.ts'

/** How long a client that was refused may take to read so and leave. */
const GOODBYE_MS = 1000

/** A `connect` listener of node:http. */
export type TunnelListener = (incoming: IncomingMessage, socket: Duplex) => void

/**
 * Refuses CONNECT with 501, the status for a method that no resource here has (RFC 9110 sections 9.1 and 15.6.2), and ends the connection: what follows on it may be meant for
 * the tunnel. Such requests are counted and logged like all others; `host` is then what the tunnel was to lead to.
 */
export function refuseTunnels(onStarted: () => void, onDone: LogRequest | undefined): TunnelListener {
  return (incoming, socket) => {
    const error = new ProxyError('this proxy opens no tunnels', { code: 'TUNNEL_REFUSED', status: 501, source: 'client' })
    const request = createRequest({ method: 'CONNECT', target: '', authority: incoming.url ?? '', remoteAddress: incoming.socket.remoteAddress ?? '' })
    request.exchange.set(startedMs, performance.now())
    onStarted()
    // node:http has let go of the connection, its errors too: one that the client resets is closed, and that is all.
    socket.on('error', () => {})
    const { status, headers, body } = errorResponse(error)
    if (isBusy(incoming.socket)) {
      // Pipelined behind a request whose answer is not through yet; there is no turn to wait for once node:http has let go.
      socket.destroy()
      onDone?.(request, status, 'aborted', error)
      return
    }
    const outgoing = new ServerResponse(incoming)
    outgoing.shouldKeepAlive = false
    outgoing.assignSocket(incoming.socket)
    outgoing.once('finish', () => {
      outgoing.detachSocket(incoming.socket)
      // Read on, so that what the client sent ahead does not reset the connection before it has read the answer.
      socket.resume().end()
      setTimeout(() => socket.destroy(), GOODBYE_MS).unref()
    })
    outgoing.writeHead(status, headers).end(body)
    onDone?.(request, status, 'complete', error)
  }
}
