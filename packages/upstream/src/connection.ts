import type { Socket } from 'node:net'
import { buildConnector, Client, type Dispatcher, errors } from 'undici'

/** What undici does not tell of the connection that a request is on. */
export interface ConnectionState {
  /** Whole answers that came on it. Above 0, it has been idle: the origin may have closed it at the moment it was used again. */
  answers: number
  /** It ended in an error, such as a reset, not in an orderly close. */
  broken: boolean
}

/** What is dispatched to a `Connection`: it is told where it is. */
export interface ConnectionUser extends Dispatcher.DispatchHandler {
  connection: ConnectionState | undefined
}

/** One connection to an origin at a time, and what we have to know about it. */
export class Connection extends Client {
  private readonly state: ConnectionState

  constructor(origin: string, options: Client.Options, connector: Connector) {
    const state: ConnectionState = { answers: 0, broken: false }
    super(origin, { ...options, connect: (target, callback) => connector(target, state, callback) })
    this.state = state
  }

  override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    const user = handler as ConnectionUser
    user.connection = this.state
    return super.dispatch(options, user)
  }
}

export type Connector = (target: buildConnector.Options, state: ConnectionState, callback: buildConnector.Callback) => void

export interface TlsConnectOptions {
  rejectUnauthorized: boolean
  ca?: string | string[]
  servername?: string
}

/**
 * Connects within `timeoutMs` (0: no limit), TLS included. `options` are those of `tls.connect`; the name asked for and verified is theirs or the origin's host,
 * never what the Host field says.
 */
export function createConnector(options: TlsConnectOptions, timeoutMs: number): Connector {
  const connect = buildConnector({ ...options, allowH2: false, timeout: 0 })
  return ({ servername: _host, ...target }, state, callback) => {
    state.answers = 0
    let timer: NodeJS.Timeout | undefined
    // Typed as returning nothing.
    const connecting = connect(target, (...result) => {
      clearTimeout(timer)
      const [error, socket] = result
      if (error === null) {
        state.broken = false
        // Before undici's own listener, which takes a reset for the end of a body that has no other.
        socket.on('error', () => {
          state.broken = true
        })
      }
      callback(...result)
    }) as unknown as Socket
    if (timeoutMs > 0) timer = setTimeout(() => connecting.destroy(new errors.ConnectTimeoutError(`no connection within ${timeoutMs} ms`)), timeoutMs)
  }
}
