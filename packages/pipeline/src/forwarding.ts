import { BlockList, isIP } from 'node:net'
import { combined } from './headers.ts'
import type { HeaderMap, ProxyRequest } from './types.ts'

/**
 * Fields by which a client could tell the origin something about itself, its address or another URL. Dropped from requests unless the peer is a trusted
 * proxy: they are not part of the cache key, so what they select would be served to others.
 */
const clientClaims: ReadonlySet<string> = new Set([
  'forwarded',
  'x-real-ip',
  'x-original-url',
  'x-rewrite-url',
  'x-http-method-override',
  'x-http-method',
  'x-method-override',
  'x-original-host',
  'x-host'
])

export function isForwardingClaim(lowerCaseName: string): boolean {
  return lowerCaseName.startsWith('x-forwarded-') || clientClaims.has(lowerCaseName)
}

/** Decides whether the peer of a connection may speak for others. Entries are addresses or CIDR blocks: `10.0.0.0/8`, `::1`. */
export class TrustedProxies {
  private readonly list = new BlockList()
  private readonly empty: boolean

  /** Throws TypeError on an entry that is no address or CIDR block. */
  constructor(entries: readonly string[] = []) {
    this.empty = entries.length === 0
    for (const entry of entries) {
      const slash = entry.indexOf('/')
      const address = slash === -1 ? entry : entry.slice(0, slash)
      const version = isIP(address)
      const bits = slash === -1 ? (version === 6 ? 128 : 32) : Number(entry.slice(slash + 1))
      if (version === 0 || !Number.isInteger(bits) || bits < 0 || bits > (version === 6 ? 128 : 32) || (slash !== -1 && entry.length === slash + 1))
        throw new TypeError(`"${entry}" is no IP address or CIDR block`)
      this.list.addSubnet(address, bits, version === 6 ? 'ipv6' : 'ipv4')
    }
  }

  trusts(address: string): boolean {
    if (this.empty) return false
    const version = isIP(address)
    return version !== 0 && this.list.check(address, version === 6 ? 'ipv6' : 'ipv4')
  }

  /** The rightmost address of X-Forwarded-For that is not one of ours; `peer` when there is none or the peer itself is not trusted. */
  clientAddress(peer: string, forwardedFor: string | string[] | undefined): string {
    if (forwardedFor === undefined || !this.trusts(peer)) return peer
    const hops = combined(forwardedFor) as string
    let client = peer
    let end = hops.length
    // From the right, and no further than needed: what stands on the left is the client's to make long.
    while (end >= 0) {
      const comma = end === 0 ? -1 : hops.lastIndexOf(',', end - 1)
      const hop = bareAddress(hops.slice(comma + 1, end).trim())
      if (hop === undefined) break
      client = hop
      if (!this.trusts(hop)) break
      end = comma
    }
    return client
  }
}

/** `192.0.2.1:4711` -> `192.0.2.1`, `[2001:db8::1]:80` -> `2001:db8::1`; undefined when it is no address. */
function bareAddress(text: string): string | undefined {
  if (isIP(text) !== 0) return plainAddress(text)
  const parts = /^(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::\d{1,5})?$/.exec(text)
  const address = parts?.[1] ?? parts?.[2] ?? ''
  return isIP(address) === 0 ? undefined : plainAddress(address)
}

/** `::ffff:192.0.2.1`, an IPv4 peer on a dual-stack socket, as `192.0.2.1`; `fe80::1%eth0`, a link-local peer, without its zone. */
export function plainAddress(address: string | undefined): string {
  if (address === undefined) return ''
  if (address.startsWith('::ffff:') && address.includes('.')) return address.slice(7)
  const zone = address.indexOf('%')
  return zone === -1 ? address : address.slice(0, zone)
}

export interface ForwardingOptions {
  /** Name of this proxy in Via. Default `proxy`. `false` leaves Via out. */
  readonly via?: string | false
  /** Whether X-Forwarded-For, -Host and -Proto are sent. Default true. */
  readonly xForwarded?: boolean
}

/** Adds to `headers` (fields of a request on its way to the origin) what this hop owes: Via (RFC 9110 section 7.6.3) and X-Forwarded-*. */
export function addForwardingHeaders(headers: HeaderMap, request: ProxyRequest, options?: ForwardingOptions): void {
  const via = options?.via ?? 'proxy'
  if (via !== false) {
    const before = combined(headers.via)
    headers.via = before === undefined ? `${request.httpVersion} ${via}` : `${before}, ${request.httpVersion} ${via}`
  }
  if (options?.xForwarded !== false) {
    // Empty on hosts that do not know it, and on local sockets; the authority is with an HTTP/1.0 client that named none.
    const { peerAddress, authority } = request
    const before = combined(headers['x-forwarded-for'])
    if (peerAddress !== '') headers['x-forwarded-for'] = before === undefined ? peerAddress : `${before}, ${peerAddress}`
    if (authority !== '') headers['x-forwarded-host'] ??= authority
    headers['x-forwarded-proto'] ??= request.scheme
  }
}
