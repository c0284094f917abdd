import { createServer as createHttpServer, type IncomingMessage, type RequestListener, type Server, type ServerOptions, ServerResponse } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { type AddressInfo, isIPv6, Server as NetServer } from 'node:net'
import { ConfigError } from './config/errors.ts'
import type { ListenerSettings } from './config/schema.ts'
import { Connections } from './connections.ts'
import { readPem } from './pools.ts'
import type { TunnelListener } from './tunnels.ts'

/** How often connections are looked at whose header or request takes too long: the precision of these two timeouts. */
const CHECK_INTERVAL_MS = 1000

/** One place where the server accepts connections. */
export interface Listener {
  /** `http://127.0.0.1:8080`, with the port that was given where 0 was asked for. Empty before `listen`. */
  readonly url: string
  readonly address: AddressInfo | undefined
  /** Throws `ConfigError` when the address cannot be had. */
  listen(): Promise<void>
  /**
   * Accepts no more connections, answers what is under way (with `Connection: close`) for up to `graceMs`, then cuts what is left.
   * Resolves to the number of connections that were cut.
   */
  close(graceMs: number): Promise<number>
}

/** A listener that hands requests to `onRequest`, those for a tunnel to `onConnect`. Throws `ConfigError` for a certificate or key that cannot be read or used. `index` is its place in the configuration. */
export async function createListener(settings: ListenerSettings, index: number, onRequest: RequestListener, onConnect: TunnelListener): Promise<Listener> {
  const { tls, timeouts } = settings
  const state = { draining: false }
  class DrainableResponse extends ServerResponse {
    // Every answer passes here: while the server is going down, each one is the last of its connection.
    override writeHead(...args: unknown[]): this {
      if (state.draining) this.shouldKeepAlive = false
      return (super.writeHead as (...args: unknown[]) => this).apply(this, args)
    }
  }
  const options: ServerOptions<typeof IncomingMessage, typeof ServerResponse> = {
    ServerResponse: DrainableResponse as typeof ServerResponse,
    headersTimeout: timeouts.headers,
    requestTimeout: Math.max(timeouts.request, timeouts.headers),
    keepAliveTimeout: timeouts.keepAlive,
    connectionsCheckingInterval: CHECK_INTERVAL_MS,
    maxHeaderSize: settings.maxHeaderSize,
    optimizeEmptyRequests: true
  }
  const certificate = tls === undefined ? undefined : { cert: await readPem(['listeners', index, 'tls', 'cert'], tls.cert), key: await readPem(['listeners', index, 'tls', 'key'], tls.key) }
  const server: Server = certificate === undefined ? createHttpServer(options, onRequest) : secureServer({ ...options, ...certificate, handshakeTimeout: timeouts.headers }, onRequest, index)
  server.maxConnections = settings.maxConnections
  // 0: as many as fit into maxHeaderSize. A limit here would drop fields silently, and with them what the message means.
  server.maxHeadersCount = 0
  // The pipeline says 100 Continue once it wants the body.
  server.on('checkContinue', onRequest)
  server.on('connect', onConnect)
  const connections = new Connections(server, certificate !== undefined)
  return new NodeListener(server, settings, index, connections, () => {
    state.draining = true
  })
}

function secureServer(options: object, onRequest: RequestListener, index: number): Server {
  try {
    return createHttpsServer(options, onRequest)
  } catch (error) {
    const { message } = error as Error
    throw new ConfigError([{ path: ['listeners', index, 'tls'], message: `the certificate and key cannot be used: ${message}` }], undefined, error)
  }
}

class NodeListener implements Listener {
  private readonly server: Server
  private readonly settings: ListenerSettings
  private readonly index: number
  private readonly connections: Connections
  private readonly startDraining: () => void
  private closed: Promise<void> | undefined

  constructor(server: Server, settings: ListenerSettings, index: number, connections: Connections, startDraining: () => void) {
    this.server = server
    this.settings = settings
    this.index = index
    this.connections = connections
    this.startDraining = startDraining
  }

  get address(): AddressInfo | undefined {
    return (this.server.address() as AddressInfo | null) ?? undefined
  }

  get url(): string {
    const { address, settings } = this
    if (address === undefined) return ''
    const host = isIPv6(settings.host) ? `[${settings.host}]` : settings.host
    return `${settings.tls === undefined ? 'http' : 'https'}://${host}:${address.port}`
  }

  listen(): Promise<void> {
    const { server, settings, index } = this
    return new Promise((resolve, reject) => {
      const failed = (error: NodeJS.ErrnoException): void => reject(listenError(error, settings, index))
      server.once('error', failed)
      server.listen({ host: settings.host, port: settings.port }, () => {
        server.off('error', failed)
        resolve()
      })
    })
  }

  async close(graceMs: number): Promise<number> {
    this.startDraining()
    if (this.closed === undefined) {
      if (!this.server.listening) return 0
      // Not http.Server.close(): it destroys connections whose answer was handed over but has not left yet, which cuts downloads short.
      this.closed = new Promise((resolve) => NetServer.prototype.close.call(this.server, () => resolve()))
    }
    const cut = await this.connections.drain(graceMs)
    await this.closed
    // Ends the timer that http.Server keeps; that the server is closed already is what it says here.
    this.server.close(() => {})
    return cut
  }
}

const reasons: Readonly<Record<string, string>> = {
  EADDRINUSE: 'the port is in use',
  EACCES: 'permission denied (ports below 1024 need a privilege)',
  EADDRNOTAVAIL: 'this machine has no such address',
  ENOTFOUND: 'there is no such host'
}

function listenError(error: NodeJS.ErrnoException, { host, port }: ListenerSettings, index: number): ConfigError {
  const { code = '' } = error
  const key = code === 'EADDRINUSE' || code === 'EACCES' ? 'port' : 'host'
  return new ConfigError([{ path: ['listeners', index, key], message: `cannot listen on ${isIPv6(host) ? `[${host}]` : host}:${port}: ${reasons[code] ?? error.message}` }], undefined, error)
}
