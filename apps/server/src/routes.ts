import { METHODS } from 'node:http'
import { createHeaders, errorResponse, type Handler, ProxyError, type ProxyResponse } from '@proxy/pipeline'
import { decodedPath, pathOf } from './target-path.ts'

/** Where requests go: `host` (undefined: any) and the prefix of the path decide. */
export interface Route {
  readonly host: string | undefined
  readonly path: string
  readonly handler: Handler
}

const noRoute = new ProxyError('no route matches', { code: 'ROUTE_NOT_FOUND', status: 404, source: 'client' })
const ambiguous = new ProxyError('the path leads to different routes as sent and as decoded', { code: 'ROUTE_AMBIGUOUS', status: 400, source: 'client' })

/**
 * Sends each request to the route that matches best: first by host (a name before `*.name` before any), then by the longest prefix of the path.
 * A prefix ends at a `/`: `/api` is `/api`, `/api/x` and `/api?y`, not `/apis`. 404 where none matches.
 *
 * An origin may decode a path before it looks at it. So that nobody reaches what a route protects by writing it another way (`/%61dmin`, `/x/../admin`,
 * `//admin`), a path that selects one route as sent and another one as decoded is refused with 400.
 *
 * `reserved` is the prefix of the server's own pages, which no target leads to: 404. `OPTIONS *` is about the server itself and answered here.
 */
export function routeRequests(routes: readonly Route[], reserved: string): Handler {
  const table = new RouteTable(routes)
  return (request) => {
    const path = pathOf(request.target)
    if (path === '*') return Promise.resolve(capabilities())
    if (isBelow(path, reserved)) return Promise.resolve(errorResponse(noRoute))
    const route = table.find(request.authority, path)
    const decoded = decodedPath(path)
    if (decoded !== path && (isBelow(decoded, reserved) || table.find(request.authority, decoded) !== route)) return Promise.resolve(errorResponse(ambiguous))
    return route === undefined ? Promise.resolve(errorResponse(noRoute)) : route.handler(request)
  }
}

const allow = METHODS.filter((method) => method !== 'CONNECT').join(', ')

/** The answer to `OPTIONS *` (RFC 9110 section 9.3.7): what the server can do in general, whatever single routes allow. */
function capabilities(): ProxyResponse {
  const headers = createHeaders()
  headers.allow = allow
  return { status: 204, headers, body: null }
}

class RouteTable {
  /** Longest prefix first. */
  private readonly anyHost: readonly Route[]
  private readonly byHost = new Map<string, readonly Route[]>()
  private readonly bySuffix: readonly (readonly [suffix: string, routes: readonly Route[]])[]

  constructor(routes: readonly Route[]) {
    const sorted = [...routes].sort((a, b) => b.path.length - a.path.length)
    this.anyHost = sorted.filter(({ host }) => host === undefined)
    const suffixes = new Map<string, readonly Route[]>()
    for (const host of new Set(sorted.map((route) => route.host))) {
      if (host === undefined) continue
      const own = sorted.filter((route) => route.host === host)
      if (host.startsWith('*.')) suffixes.set(host.slice(1), own)
      else this.byHost.set(host, own)
    }
    this.bySuffix = [...suffixes].sort(([a], [b]) => b.length - a.length)
  }

  find(authority: string, path: string): Route | undefined {
    if (this.byHost.size > 0 || this.bySuffix.length > 0) {
      const host = hostOf(authority)
      const own = this.byHost.get(host)
      const found = own === undefined ? undefined : longest(own, path)
      if (found !== undefined) return found
      for (const [suffix, routes] of this.bySuffix) {
        const matching = host.endsWith(suffix) ? longest(routes, path) : undefined
        if (matching !== undefined) return matching
      }
    }
    return longest(this.anyHost, path)
  }
}

function longest(routes: readonly Route[], path: string): Route | undefined {
  for (const route of routes) if (isBelow(path, route.path)) return route
  return undefined
}

function isBelow(path: string, prefix: string): boolean {
  if (!path.startsWith(prefix)) return false
  return path.length === prefix.length || prefix.endsWith('/') || path.charCodeAt(prefix.length) === 47
}

/** Without port, and without the dot that ends a fully qualified name. */
function hostOf(authority: string): string {
  const colon = authority.lastIndexOf(':')
  const host = colon > authority.lastIndexOf(']') ? authority.slice(0, colon) : authority
  return host.endsWith('.') ? host.slice(0, -1) : host
}
