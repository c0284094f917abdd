import { isIP } from 'node:net'
import type { RedisOptions } from 'ioredis'

/** Where a Redis is and who asks. */
export interface RedisAddress extends Pick<RedisOptions, 'host' | 'port' | 'path' | 'username' | 'password' | 'db' | 'tls'> {}

/**
 * Reads `redis[s]://[user[:password]@]host[:port][/db]` or the absolute path of a Unix socket. Query parameters are refused: drivers take them as options,
 * and could switch off what makes the client fail fast. Throws TypeError, whose message and properties never hold the URL: it may carry a password.
 */
export function parseRedisUrl(url: string): RedisAddress {
  if (url.startsWith('/') && !url.startsWith('//')) return { path: url }
  const parsed = URL.canParse(url) ? new URL(url) : undefined
  if (parsed === undefined || (parsed.protocol !== 'redis:' && parsed.protocol !== 'rediss:') || parsed.hostname === '') {
    throw new TypeError('not a Redis URL: expected redis://[user:password@]host[:port][/db], rediss://… or the path of a socket')
  }
  if (parsed.search !== '') throw new TypeError('a Redis URL takes no query parameters here')
  const db = parsed.pathname.length > 1 ? parsed.pathname.slice(1) : '0'
  if (!/^\d{1,9}$/.test(db)) throw new TypeError('not a Redis URL: the path is not the number of a database')
  const host = parsed.hostname.replace(/^\[|\]$/g, '')
  const username = decoded(parsed.username)
  const password = decoded(parsed.password)
  return {
    host,
    port: parsed.port === '' ? 6379 : Number(parsed.port),
    db: Number(db),
    ...(username !== '' && { username }),
    ...(password !== '' && { password }),
    // A certificate names a host; an address is not sent as server name (RFC 6066 section 3).
    ...(parsed.protocol === 'rediss:' && { tls: isIP(host) === 0 ? { servername: host } : {} })
  }
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    // the error would repeat the text
    throw new TypeError('not a Redis URL: user or password is not percent-encoded correctly')
  }
}
