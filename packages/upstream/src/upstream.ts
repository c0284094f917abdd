import { type Handler, type Target, target, upstreamName } from '@proxy/pipeline'
import { closedError, noTargetError } from './errors.ts'
import { parseOrigin, resolveOptions, type UpstreamOptions } from './options.ts'
import { OriginPool } from './origin-pool.ts'
import { RequestHeaderBuilder } from './request-headers.ts'

export interface UpstreamHandler extends Handler {
  /** Ends requests under way, closes all connections. Requests after that fail with `UPSTREAM_CLOSED`. */
  close(): Promise<void>
}

/**
 * The innermost handler: sends the request to an origin and streams the answer back, both with backpressure. Follows no redirects, decodes nothing,
 * verifies TLS. Throws `ProxyError` with source `upstream`: 502 when the origin refuses, resets or breaks the protocol, 504 when it takes too long.
 *
 * The factory throws TypeError or RangeError for options that cannot be meant.
 *
 * @example
 * const handler = upstream({ origin: 'https://example.org' })
 */
export function upstream(options: UpstreamOptions = {}): UpstreamHandler {
  const settings = resolveOptions(options)
  const headers = new RequestHeaderBuilder(options.requestHeaders ?? {}, options.clientHeaders !== 'none', { via: settings.via, xForwarded: options.xForwarded ?? true }, options.requestIdHeader)
  const pools = new Map<string, OriginPool>()
  /** Pools of origins that were given up, until what they had under way has ended. */
  const closing = new Set<OriginPool>()
  let closed = false

  const giveUp = async (key: string, pool: OriginPool): Promise<void> => {
    pools.delete(key)
    closing.add(pool)
    try {
      await pool.close()
    } catch {
      // Destroyed meanwhile, which is what was wanted.
    } finally {
      closing.delete(pool)
    }
  }

  const open = (origin: string): OriginPool => {
    const pool = new OriginPool(parseOrigin(origin), settings, headers)
    const [oldest] = pools.size >= settings.maxOrigins ? pools : []
    if (oldest !== undefined) void giveUp(...oldest)
    pools.set(origin, pool)
    return pool
  }

  const fixed = options.origin === undefined ? undefined : open(options.origin)

  const chosen = ({ origin }: Target): OriginPool => {
    const pool = pools.get(origin)
    if (pool !== undefined) return pool
    try {
      return open(origin)
    } catch (cause) {
      throw noTargetError(`a balancing layer chose "${origin}", which is no origin`, cause)
    }
  }

  const send: Handler = (request) => {
    if (closed) return Promise.reject(closedError())
    if (fixed !== undefined) {
      request.exchange.set(upstreamName, fixed.name)
      return fixed.send(request)
    }
    const to = request.context.get(target)
    if (to === undefined) return Promise.reject(noTargetError('no origin: neither upstream({ origin }) nor a balancing layer names one'))
    request.exchange.set(upstreamName, to.name)
    try {
      return chosen(to).send(request)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  return Object.assign(send, {
    close: async () => {
      closed = true
      await Promise.all([...pools.values(), ...closing].map((pool) => pool.destroy()))
      pools.clear()
    }
  })
}
