import type { ConnectionOptions } from 'node:tls'
import type { ProxyError } from '@proxy/pipeline'
import { Redis } from 'ioredis'
import { redisError } from './errors.ts'
import { parseRedisUrl } from './redis-url.ts'

export interface ConnectRedisOptions {
  /** Bound of every command sent through the client, and of each step of the handshake. A store has its own, shorter deadline. Default 200. */
  readonly commandTimeoutMs?: number
  /** For the TCP (and TLS) connection. Default 500. */
  readonly connectTimeoutMs?: number
  /** A connection on which commands wait and nothing arrives for this long is given up and made anew. Default 1000. */
  readonly socketTimeoutMs?: number
  /** Longest pause between two attempts to connect; they start at 50 to 100 ms and double. Default 1000. */
  readonly maxReconnectDelayMs?: number
  /** Shown by `CLIENT LIST`. Default: none. */
  readonly connectionName?: string
  /** Certificates and checks of a `rediss://` URL, as for `tls.connect`. Default: the system's authorities. */
  readonly tls?: ConnectionOptions
  /** Told of every failure of the connection, also of each failed attempt; for logs and metrics. Free of credentials. Must not throw. */
  readonly onFault?: (error: ProxyError) => void
}

/** A connection that keeps itself alive. */
export interface RedisConnection {
  /** For stores and for commands of your own: these fail at once while Redis is away, and after `commandTimeoutMs` when it is silent. */
  readonly client: Redis
  /** Resolves to true once connected, to false when that took longer than `timeoutMs` (default 1000) or the connection was closed. Never rejects. */
  ready(timeoutMs?: number): Promise<boolean>
  /** Ends the connection and its attempts. Stores that use it are closed first. Never rejects. */
  close(): Promise<void>
}

/** A dead peer does not answer a polite end either: milliseconds until the socket is destroyed. */
const DISCONNECT_TIMEOUT_MS = 500
/** Reconnecting cuts off whatever else is under way: at most once in so many milliseconds because of a READONLY reply. */
const READONLY_RECONNECT_MS = 1000

/**
 * Connects to a Redis in the background and returns at once, whether it is there or not. Commands never queue: they fail at once while there is no
 * connection, and after `commandTimeoutMs` when no reply comes. A lost connection comes back by itself, within `maxReconnectDelayMs` of Redis.
 * A replica that answers READONLY (after a failover) is left: the name is resolved anew.
 *
 * `url`: `redis://[user:password@]host[:port][/db]`, `rediss://…` or the path of a Unix socket. Throws TypeError for anything else, without repeating it.
 */
export function connectRedis(url: string, options: ConnectRedisOptions = {}): RedisConnection {
  const address = parseRedisUrl(url)
  const { maxReconnectDelayMs = 1000, connectionName, onFault } = options
  let readonlySince = Number.NEGATIVE_INFINITY
  const client = new Redis({
    ...address,
    ...(address.tls !== undefined && { tls: { ...address.tls, ...options.tls } }),
    ...(connectionName !== undefined && { connectionName }),
    commandTimeout: options.commandTimeoutMs ?? 200,
    connectTimeout: options.connectTimeoutMs ?? 500,
    socketTimeout: options.socketTimeoutMs ?? 1000,
    disconnectTimeout: DISCONNECT_TIMEOUT_MS,
    lazyConnect: true,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    // It costs a round trip and a right (INFO); a server that is still loading says so to every command, and the store's breaker hears it.
    enableReadyCheck: false,
    retryStrategy: (attempt) => {
      const delay = Math.min(50 * 2 ** Math.min(attempt, 16), maxReconnectDelayMs)
      return delay / 2 + (Math.random() * delay) / 2
    },
    reconnectOnError: (error) => {
      if (!error.message.includes('READONLY') || performance.now() - readonlySince < READONLY_RECONNECT_MS) return false
      readonlySince = performance.now()
      return true
    }
  })
  client.on('error', (error: Error) => {
    // The driver hangs the failed command on its error, and the handshake's arguments are the credentials: nobody may log those.
    delete (error as { command?: unknown }).command
    onFault?.(redisError('REDIS_UNAVAILABLE', `the connection to Redis failed: ${redacted(error.message, address.password)}`))
  })
  client.connect().catch(heardAlready)
  return { client, ready: (timeoutMs = 1000) => untilReady(client, timeoutMs), close: () => close(client) }
}

// The listener of `error` is told of the same failure.
function heardAlready(): void {}

/** Servers that do not know a command repeat its arguments. */
function redacted(message: string, password: string | null | undefined): string {
  return password ? message.replaceAll(password, '***') : message
}

function untilReady(client: Redis, timeoutMs: number): Promise<boolean> {
  if (client.status === 'ready' || client.status === 'end') return Promise.resolve(client.status === 'ready')
  return new Promise((resolve) => {
    const settle = (): void => {
      clearTimeout(timer)
      client.off('ready', settle)
      client.off('end', settle)
      resolve(client.status === 'ready')
    }
    const timer = setTimeout(settle, timeoutMs)
    client.once('ready', settle)
    client.once('end', settle)
  })
}

function close(client: Redis): Promise<void> {
  const { status } = client
  if (status === 'end') return Promise.resolve()
  // Between two attempts there is no socket whose end could be awaited.
  if (status === 'reconnecting') {
    client.disconnect()
    return Promise.resolve()
  }
  return new Promise((resolve) => {
    client.once('end', () => resolve())
    client.disconnect()
  })
}
