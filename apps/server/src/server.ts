import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import { toNode } from '@proxy/pipeline/node'
import { accessLog, type LogRequest } from './access-log.ts'
import { adminApp } from './admin.ts'
import { composeProxy, type Pipelines } from './compose.ts'
import { resolveConfig } from './config/resolve.ts'
import type { Config, Settings } from './config/schema.ts'
import { unusedStores } from './config/tiers.ts'
import { createListener, type Listener } from './listener.ts'
import { createLog, describeError, type LogDestination, type ServerLog } from './logger.ts'
import { Metrics } from './metrics.ts'
import { createMask } from './secrets.ts'
import { StoreFaults } from './store-faults.ts'
import { refuseTunnels, type TunnelListener } from './tunnels.ts'

export interface ServerOptions {
  /** Where log lines go. Default: standard output. */
  readonly log?: LogDestination
}

export type ServerState = 'starting' | 'ready' | 'draining'

/** A proxy that runs in this process. */
export interface ProxyServer {
  readonly state: ServerState
  /** Where it listens, in the order of the configuration, with the ports it was given: `http://127.0.0.1:8080`. Empty texts before `listen`. */
  readonly urls: readonly string[]
  /** Starts all listeners, or none: throws `ConfigError` when an address cannot be had. */
  listen(): Promise<void>
  /**
   * Accepts no more connections, answers what is under way for up to `graceMs` (default `shutdownGrace` of the configuration), then cuts what is left, waits
   * for cache writes and ends. Called again with a shorter time, it cuts earlier. Resolves to the number of connections that were cut.
   */
  close(graceMs?: number): Promise<number>
  /** Writes a line to the server's log, secrets masked. */
  note(level: 'info' | 'warn' | 'error', message: string, error?: unknown): void
}

/** Builds everything a configuration describes. Nothing listens yet. Throws `ConfigError` naming the keys that are wrong. */
export async function createServer(config: Config, options: ServerOptions = {}): Promise<ProxyServer> {
  const settings = resolveConfig(config)
  const mask = createMask(settings)
  const log = createLog(settings.observability.logLevel, options.log)
  const metrics = settings.observability.metrics ? new Metrics() : undefined
  const lifecycle: { state: ServerState } = { state: 'starting' }

  const faults = new StoreFaults({ logger: log.logger, metrics, mask })
  const proxy = await composeProxy(settings, (store, error) => faults.report(store, error))
  metrics?.watchCache(proxy.cacheStats)
  metrics?.observeTiers(() => proxy.tierStats())
  for (const store of unusedStores(settings)) log.logger.warn({ store }, 'store is configured but not used')
  const done = onDone(metrics, settings.observability.accessLog ? accessLog(log, mask) : undefined)
  const data = toNode(proxy.handler, { trustedProxies: settings.trustedProxies, ...(done !== undefined && { onDone: done }) })
  const admin = adminApp({
    settings,
    metrics,
    state: () => lifecycle.state,
    onError: (error) => log.logger.error({ error: describeError(error, mask) }, 'admin request failed'),
    explain: proxy.explain,
    purge: (purge) => proxy.purge(purge),
    onAudit: (call) => log.logger.info(call, 'admin call')
  })
  const onAdmin = getRequestListener(admin.fetch, { overrideGlobalObjects: false })
  const { prefix } = settings.admin
  // Proxied requests do not pass through Hono: it costs as much as everything this server adds to node:http.
  const onRequest = (incoming: IncomingMessage, outgoing: ServerResponse): void => {
    if (isReserved(incoming.url as string, prefix)) void onAdmin(incoming, outgoing)
    else {
      metrics?.requestStarted()
      data(incoming, outgoing)
    }
  }
  const onConnect = refuseTunnels(() => metrics?.requestStarted(), done)
  const listeners = await createListeners(settings, proxy, onRequest, onConnect)
  return new ComposedServer({ settings, log, mask, lifecycle, listeners, proxy })
}

async function createListeners(settings: Settings, proxy: Pipelines, onRequest: RequestListener, onConnect: TunnelListener): Promise<readonly Listener[]> {
  try {
    const listeners: Listener[] = []
    for (const [index, listener] of settings.listeners.entries()) listeners.push(await createListener(listener, index, onRequest, onConnect))
    return listeners
  } catch (error) {
    await proxy.close(0)
    throw error
  }
}

function isReserved(target: string, prefix: string): boolean {
  if (!target.startsWith(prefix)) return false
  const next = target.charCodeAt(prefix.length)
  return target.length === prefix.length || next === 47 || next === 63
}

function onDone(metrics: Metrics | undefined, logRequest: LogRequest | undefined): LogRequest | undefined {
  if (metrics === undefined && logRequest === undefined) return undefined
  return (request, status, outcome, error) => {
    // A body that broke off because its reader has left is nobody's failure.
    const ended = outcome === 'failed' && error?.source === 'client' ? 'aborted' : outcome
    metrics?.requestDone(request, status, ended)
    logRequest?.(request, status, ended, error)
  }
}

interface ServerParts {
  readonly settings: Settings
  readonly log: ServerLog
  readonly mask: (text: string) => string
  readonly lifecycle: { state: ServerState }
  readonly listeners: readonly Listener[]
  readonly proxy: Pipelines
}

class ComposedServer implements ProxyServer {
  private readonly parts: ServerParts
  private ended: Promise<void> | undefined
  private readonly ending = new AbortController()

  constructor(parts: ServerParts) {
    this.parts = parts
  }

  get state(): ServerState {
    return this.parts.lifecycle.state
  }

  get urls(): readonly string[] {
    return this.parts.listeners.map(({ url }) => url)
  }

  async listen(): Promise<void> {
    const { listeners, lifecycle } = this.parts
    try {
      for (const listener of listeners) await listener.listen()
    } catch (error) {
      await this.close(0)
      throw error
    }
    lifecycle.state = 'ready'
    for (const url of this.urls) this.parts.log.logger.info({ url }, 'listening')
    if (this.parts.settings.preload.urls.length > 0) void this.preload()
  }

  /** Never rejects. */
  private async preload(): Promise<void> {
    const { log, mask, proxy, settings } = this.parts
    const { concurrency, urls } = settings.preload
    const startedMs = performance.now()
    try {
      const summary = await proxy.preload(urls, {
        concurrency,
        signal: this.ending.signal,
        onResult: ({ url, status, error }) => {
          if (error !== undefined || (status as number) >= 500)
            log.logger.warn({ url: mask(url), ...(status !== undefined && { status }), ...(error !== undefined && { error: describeError(error, mask) }) }, 'preload failed')
        }
      })
      log.logger.info({ ...summary, seconds: Number(((performance.now() - startedMs) / 1000).toFixed(3)) }, 'preload done')
    } catch (error) {
      log.logger.error({ error: describeError(error, mask) }, 'preload ended')
    }
  }

  async close(graceMs = this.parts.settings.shutdownGrace): Promise<number> {
    const { lifecycle, listeners, proxy, log } = this.parts
    lifecycle.state = 'draining'
    this.ending.abort()
    const startedMs = performance.now()
    const cut = await Promise.all(listeners.map((listener) => listener.close(graceMs)))
    await (this.ended ??= proxy.close(Math.max(0, graceMs - (performance.now() - startedMs))))
    await log.flush()
    return cut.reduce((sum, count) => sum + count, 0)
  }

  note(level: 'info' | 'warn' | 'error', message: string, error?: unknown): void {
    const { log, mask } = this.parts
    log.logger[level](error === undefined ? {} : { error: describeError(error, mask) }, message)
  }
}
