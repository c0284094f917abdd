import { X509Certificate } from 'node:crypto'
import type { RequestHeaderRules } from './request-headers.ts'

export interface UpstreamOptions {
  /** Where requests go: scheme, host and port, no path. Default: the `target` that a balancing layer put into the request's context. */
  readonly origin?: string
  /** Deadline for a connection, TLS included, and for one of `connections` to become free. Milliseconds, 0: none. Default 5 000. */
  readonly connectTimeoutMs?: number
  /** Deadline for the header of the answer, from when the request was sent; interim answers do not extend it. Milliseconds, 0: none. Default 30 000. */
  readonly headersTimeoutMs?: number
  /** Longest pause in the body of the answer, while it is being read. Milliseconds, 0: any. Default 30 000. */
  readonly bodyTimeoutMs?: number
  /** Connections per origin. Requests beyond wait for one. Default 256. */
  readonly connections?: number
  /** Requests per origin that may wait for a connection. Default 4 096. */
  readonly maxQueued?: number
  /** Origins that connections are kept for, where a balancing layer names them. Beyond, those of the one known longest are given up. Default 1 024. */
  readonly maxOrigins?: number
  /** How long an idle connection is kept, or shorter where the origin asks for it. Milliseconds. Default 4 000: less than most origins do, so that they rarely close first. */
  readonly keepAliveMs?: number
  /** Largest header section of an answer. Bytes. Default 64 KiB. */
  readonly maxHeaderBytes?: number
  readonly tls?: UpstreamTlsOptions
  readonly requestHeaders?: RequestHeaderRules
  /**
   * Whether the client's fields go to the origin. `none` leaves those of the request itself: conditions, Range, Cache-Control, Pragma, X-Request-Id, and what
   * describes its body (Content-*). Default `forward`.
   */
  readonly clientHeaders?: 'forward' | 'none'
  /** Name of this proxy in Via, in both directions. `false`: none. Default `proxy`. */
  readonly via?: string | false
  /** Whether X-Forwarded-For, -Host and -Proto tell the origin about the client. Default true. */
  readonly xForwarded?: boolean
  /** Field that tells the origin the `requestId` of the exchange, where a layer has given it one, in place of the client's own. Default: none. */
  readonly requestIdHeader?: string
}

export interface UpstreamTlsOptions {
  /** Default true. False accepts any certificate: for tests. */
  readonly rejectUnauthorized?: boolean
  /** Certificate authorities, PEM, instead of Node's. */
  readonly ca?: string | readonly string[]
  /** Name asked for and verified instead of the origin's host. */
  readonly servername?: string
}

/** Options with their defaults, checked. */
export interface Settings {
  readonly connectTimeoutMs: number
  readonly headersTimeoutMs: number
  readonly bodyTimeoutMs: number
  readonly connections: number
  readonly maxQueued: number
  readonly maxOrigins: number
  readonly keepAliveMs: number
  readonly maxHeaderBytes: number
  readonly via: string | false
  readonly tls: UpstreamTlsOptions
}

const MAX_TIMER_MS = 2 ** 31 - 1

/** Throws RangeError for a number and TypeError for anything else that cannot be meant. */
export function resolveOptions(options: UpstreamOptions): Settings {
  const { via = 'proxy', tls = {}, clientHeaders } = options
  if (clientHeaders !== undefined && clientHeaders !== 'forward' && clientHeaders !== 'none') throw new TypeError(`clientHeaders is "forward" or "none", not "${String(clientHeaders)}"`)
  // RFC 9110 section 7.6.3: a token, or a host with an optional port.
  if (via !== false && !/^[\w!#$%&'*+.^`|~:[\]-]+$/.test(via)) throw new TypeError(`"${via}" cannot be a name in Via`)
  checkTls(tls)
  return {
    connectTimeoutMs: integer(options, 'connectTimeoutMs', 5_000, 0),
    headersTimeoutMs: integer(options, 'headersTimeoutMs', 30_000, 0),
    bodyTimeoutMs: integer(options, 'bodyTimeoutMs', 30_000, 0),
    connections: integer(options, 'connections', 256, 1),
    maxQueued: integer(options, 'maxQueued', 4_096, 1),
    maxOrigins: integer(options, 'maxOrigins', 1_024, 1),
    keepAliveMs: integer(options, 'keepAliveMs', 4_000, 1),
    maxHeaderBytes: integer(options, 'maxHeaderBytes', 64 * 1024, 1),
    via,
    tls
  }
}

type NumberOption = { [Name in keyof UpstreamOptions]-?: NonNullable<UpstreamOptions[Name]> extends number ? Name : never }[keyof UpstreamOptions]

function integer(options: UpstreamOptions, name: NumberOption, byDefault: number, least: number): number {
  const value = options[name] ?? byDefault
  if (!Number.isInteger(value) || value < least || value > MAX_TIMER_MS) throw new RangeError(`${name} must be an integer of at least ${least}, not ${value}`)
  return value
}

function checkTls(tls: UpstreamTlsOptions): void {
  if (tls.servername === '') throw new TypeError('tls.servername is empty')
  if (tls.ca === undefined) return
  // OpenSSL skips what it cannot read, and would then trust nobody.
  const blocks = [tls.ca].flat().map((pem) => pem.match(/-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----[^-]*-----END/g))
  if (blocks.length === 0 || blocks.includes(null)) throw new TypeError('tls.ca has no certificate in PEM')
  try {
    for (const block of blocks.flat()) new X509Certificate(`${block} CERTIFICATE-----`.replaceAll(/(?:X509|TRUSTED) /g, ''))
  } catch (cause) {
    throw new TypeError('tls.ca has a certificate that cannot be read', { cause })
  }
}

/** The origin of `text`, as `URL` writes it. Throws TypeError unless it is scheme, host and port alone. */
export function parseOrigin(text: string): string {
  if (!/^https?:\/\/[^/?#@\\\s]+\/?$/i.test(text) || !URL.canParse(text)) throw new TypeError(`"${text}" is no origin: scheme, host and port, like https://example.org:8443`)
  return new URL(text).origin
}
