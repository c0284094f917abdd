import { hash } from 'node:crypto'

/** SHA-256 of a cache key, in hex: 64 digits. */
export const keyDigest = (key: string): string => hash('sha256', key, 'hex')

/** The default object name: the digest of the key behind its first two digits, so that listings and lifecycle rules can work on a part of the bucket. */
export function hashedObjectName(key: string): string {
  const digest = keyDigest(key)
  return `${digest.slice(0, 2)}/${digest}`
}
