import type { Server } from 'node:http'
import type { Socket } from 'node:net'

/** How often a draining server looks for connections that have become idle. */
const SWEEP_INTERVAL_MS = 50
/** Sweeps that a closed connection gets to say goodbye itself. */
const PATIENCE = 20

/** node:http keeps the answer under way on its socket. */
type HttpSocket = Socket & { readonly _httpMessage?: unknown }

/** The open connections of a server, so that it can end without cutting an answer. Costs nothing per request. */
export class Connections {
  /** Everything that is accepted, TLS handshakes under way too. */
  private readonly accepted = new Set<Socket>()
  /** Those that speak HTTP: for TLS, the socket inside. */
  private readonly speaking = new Set<HttpSocket>()
  private cut = 0

  constructor(server: Server, secure: boolean) {
    server.on('connection', (socket: Socket) => remember(this.accepted, socket))
    server.on(secure ? 'secureConnection' : 'connection', (socket: Socket) => remember(this.speaking, socket))
  }

  /** Ends idle connections, others once they are idle, and destroys what is left after `graceMs`. Resolves, when none is open, to how many were destroyed in the midst of an answer, by this call or another. */
  drain(graceMs: number): Promise<number> {
    const sweeps = new Map<Socket, number>()
    const deadlineMs = performance.now() + graceMs
    return new Promise((resolve) => {
      const sweep = (): void => {
        if (performance.now() >= deadlineMs) {
          for (const socket of this.speaking) if (isBusy(socket) && !socket.destroyed) this.cut++
          for (const socket of [...this.accepted, ...this.speaking]) socket.destroy()
        } else for (const socket of this.speaking) this.endIdle(socket, sweeps)
        if (this.accepted.size === 0) {
          clearInterval(timer)
          resolve(this.cut)
        }
      }
      const timer = setInterval(sweep, SWEEP_INTERVAL_MS)
      sweep()
    })
  }

  /** A plain end first: what the client has sent meanwhile then meets an orderly close, not a reset. */
  private endIdle(socket: HttpSocket, sweeps: Map<Socket, number>): void {
    if (isBusy(socket)) return
    const seen = sweeps.get(socket) ?? 0
    sweeps.set(socket, seen + 1)
    if (seen === 0) socket.end()
    else if (seen > PATIENCE && socket.writableFinished) socket.destroy()
  }
}

/** Whether an answer is under way on it. */
export function isBusy(socket: HttpSocket): boolean {
  return socket._httpMessage !== undefined && socket._httpMessage !== null
}

function remember(sockets: Set<Socket>, socket: Socket): void {
  sockets.add(socket)
  socket.once('close', () => sockets.delete(socket))
}
