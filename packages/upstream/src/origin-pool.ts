import { clientAborted, isAborted, type ProxyError, type ProxyRequest, type ProxyResponse } from '@proxy/pipeline'
import { type Client, type Dispatcher, Pool } from 'undici'
import { UpstreamCall } from './call.ts'
import { Connection, type ConnectionUser, createConnector, type TlsConnectOptions } from './connection.ts'
import { DeadlineQueue } from './deadlines.ts'
import { busyError, connectTimeoutError } from './errors.ts'
import type { Settings, UpstreamTlsOptions } from './options.ts'
import type { RequestHeaderBuilder } from './request-headers.ts'

/** The connections to one origin, and the deadlines of what is under way on them. */
export class OriginPool {
  readonly origin: string
  readonly settings: Settings
  readonly headers: RequestHeaderBuilder
  /** Requests that have no connection yet. */
  readonly queued: DeadlineQueue
  /** Requests that were sent and have no answer yet. */
  readonly sent: DeadlineQueue
  /** Answers whose body is being read. */
  readonly bodies: DeadlineQueue
  /** Host and port. */
  readonly name: string
  private readonly pool: Pool
  private readonly connect: () => Connection
  /** Connections for one repeated request each. */
  private readonly single = new Set<Connection>()

  constructor(origin: string, settings: Settings, headers: RequestHeaderBuilder) {
    this.origin = origin
    this.name = origin.slice(origin.indexOf('//') + 2)
    this.settings = settings
    this.headers = headers
    this.queued = new DeadlineQueue(settings.connectTimeoutMs)
    this.sent = new DeadlineQueue(settings.headersTimeoutMs)
    this.bodies = new DeadlineQueue(settings.bodyTimeoutMs)
    const connector = createConnector(tlsOptions(settings.tls), settings.connectTimeoutMs)
    const options: Client.Options = {
      pipelining: 1,
      allowH2: false,
      // The deadlines above are kept here, to the millisecond.
      headersTimeout: 0,
      bodyTimeout: 0,
      keepAliveTimeout: settings.keepAliveMs,
      keepAliveMaxTimeout: settings.keepAliveMs,
      maxHeaderSize: settings.maxHeaderBytes
    }
    this.connect = () => new Connection(origin, options, connector)
    this.pool = new Pool(origin, { connections: settings.connections, allowH2: false, factory: this.connect })
  }

  send(request: ProxyRequest): Promise<ProxyResponse> {
    return new Promise((resolve, reject) => {
      const call = new UpstreamCall(this, request, resolve, reject)
      if (isAborted(request)) call.refuse(clientAborted())
      else if (this.queued.size >= this.settings.maxQueued) call.refuse(busyError(this.origin, `${this.settings.maxQueued} requests are waiting for a connection`))
      else call.dispatch(this.pool)
    })
  }

  /** Sends on a connection of its own: the others may be as dead as the one before. */
  repeat(options: Dispatcher.DispatchOptions, user: ConnectionUser): void {
    const connection = this.connect()
    this.single.add(connection)
    connection.dispatch(options, user)
    void this.closeSingle(connection)
  }

  private async closeSingle(connection: Connection): Promise<void> {
    try {
      await connection.close()
    } catch {
      // Destroyed meanwhile, which is what was wanted.
    } finally {
      this.single.delete(connection)
    }
  }

  /** Why a request has waited for a connection too long. */
  noConnectionError(): ProxyError {
    const { connections, connectTimeoutMs } = this.settings
    return this.pool.stats.connected >= connections ? busyError(this.origin, `all ${connections} connections are in use`) : connectTimeoutError(this.origin, connectTimeoutMs)
  }

  /** Takes no more requests; resolves when those under way have ended. */
  close(): Promise<void> {
    return this.pool.close()
  }

  /** Ends what is under way. */
  async destroy(): Promise<void> {
    await Promise.all([this.pool.destroy(), ...[...this.single].map((connection) => connection.destroy())])
  }
}

function tlsOptions(tls: UpstreamTlsOptions): TlsConnectOptions {
  const options: TlsConnectOptions = { rejectUnauthorized: tls.rejectUnauthorized ?? true }
  if (tls.ca !== undefined) options.ca = typeof tls.ca === 'string' ? tls.ca : [...tls.ca]
  if (tls.servername !== undefined) options.servername = tls.servername
  return options
}
