import type { Socket } from 'node:net'
import type { FaultMode } from './fault-mode.ts'

// How much one direction holds back before it stops reading, like the buffers of a slow network.
const maxHeldBytes = 1024 * 1024

/** One client's connection and the one to the service behind it. */
export class FaultLink {
  /** Resolves when both connections are gone. */
  readonly closed: Promise<unknown>
  readonly #client: Socket
  readonly #service: Socket
  readonly #up: Lane
  readonly #down: Lane

  constructor(client: Socket, service: Socket, mode: FaultMode) {
    this.#client = client
    this.#service = service
    this.#up = new Lane(client, service)
    this.#down = new Lane(service, client, () => this.reset())
    this.closed = Promise.all([client, service].map((socket) => new Promise((resolve) => socket.once('close', resolve))))
    for (const socket of [client, service]) {
      // A failure on one side is a failure of the whole; an orderly end passes through the lanes.
      socket.on('error', () => this.reset())
      socket.once('close', () => this.#closeOther(socket))
    }
    this.setMode(mode)
  }

  setMode(mode: FaultMode): void {
    this.#up.setMode(mode.kind === 'freeze' ? mode : { kind: 'pass' })
    this.#down.setMode(mode)
  }

  reset(): void {
    this.#up.stop()
    this.#down.stop()
    resetSocket(this.#client)
    resetSocket(this.#service)
  }

  #closeOther(socket: Socket): void {
    if (socket.readableEnded && socket.writableFinished) return
    this.reset()
  }
}

function resetSocket(socket: Socket): void {
  // node:net puts off the reset of a connection that is not there yet,
  if (socket.connecting) socket.destroy()
  // and one that is just sending its end would never close: libuv refuses to reset it. Lanes end a socket only when all is written, so this is soon over.
  else if (socket.writableEnded && !socket.writableFinished && !socket.destroyed) socket.once('finish', () => socket.resetAndDestroy())
  else socket.resetAndDestroy()
}

interface Held {
  /** undefined is the end of the direction. */
  readonly chunk: Buffer | undefined
  readonly arrivedMs: number
}

/** One direction of a link: holds what arrived until the mode lets it pass, in order and with backpressure. */
class Lane {
  readonly #from: Socket
  readonly #to: Socket
  readonly #cut: () => void
  #mode: FaultMode = { kind: 'freeze' }
  #held: Held[] = []
  #heldBytes = 0
  #leftBytes = Number.POSITIVE_INFINITY
  #timer: NodeJS.Timeout | undefined
  #stopped = false

  constructor(from: Socket, to: Socket, cut: () => void = () => {}) {
    this.#from = from
    this.#to = to
    this.#cut = cut
    from.on('data', (chunk: Buffer) => this.#hold(chunk))
    from.on('end', () => this.#hold(undefined))
    from.pause()
  }

  setMode(mode: FaultMode): void {
    this.#mode = mode
    this.#leftBytes = mode.kind === 'cutAfter' ? mode.bytes : Number.POSITIVE_INFINITY
    this.#pass()
  }

  stop(): void {
    this.#stopped = true
    clearTimeout(this.#timer)
    this.#held = []
  }

  #hold(chunk: Buffer | undefined): void {
    if (this.#stopped) return
    this.#held.push({ chunk, arrivedMs: performance.now() })
    this.#heldBytes += chunk?.length ?? 0
    this.#pass()
  }

  #pass(): void {
    clearTimeout(this.#timer)
    while (!this.#stopped && this.#mode.kind !== 'freeze' && !this.#to.writableNeedDrain) {
      const next = this.#held[0]
      if (!next) break
      if (!next.chunk && this.#to.writableLength > 0) break
      const waitMs = this.#mode.kind === 'delay' ? next.arrivedMs + this.#mode.ms - performance.now() : 0
      if (waitMs > 0) {
        this.#timer = setTimeout(() => this.#pass(), Math.ceil(waitMs))
        break
      }
      this.#held.shift()
      this.#heldBytes -= next.chunk?.length ?? 0
      this.#write(next.chunk)
    }
    if (this.#stopped || this.#mode.kind === 'freeze' || this.#heldBytes >= maxHeldBytes) this.#from.pause()
    else this.#from.resume()
  }

  #write(chunk: Buffer | undefined): void {
    if (!chunk) {
      this.#to.end()
    } else if (chunk.length < this.#leftBytes) {
      this.#leftBytes -= chunk.length
      this.#to.write(chunk, () => this.#pass())
    } else {
      // The reset waits until the kernel has the bytes: what is still in our own buffer would be lost.
      this.#stopped = true
      this.#to.write(chunk.subarray(0, this.#leftBytes), this.#cut)
    }
  }
}
