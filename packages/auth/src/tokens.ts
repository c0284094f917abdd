import { hash } from 'node:crypto'
import type { Principal } from '@proxy/pipeline'
import { MAX_CREDENTIAL_LENGTH } from './constant-time.ts'
import { CredentialTable } from './credential-table.ts'

/**
 * Accepted secrets: a list, whose principals get ids derived from the secret (`bearer:1f0c4a2e`, the start of its SHA-256), or secret -> principal id.
 * Several secrets may name one principal, as when a token is being replaced.
 */
export type Tokens = readonly string[] | ReadonlyMap<string, string> | Readonly<Record<string, string>>

/** What a secret must look like to be able to arrive at all. */
export interface SecretSyntax {
  readonly pattern: RegExp
  /** Follows "must be": `token68 (RFC 9110 section 11.2)`. */
  readonly description: string
}

interface TokenEntries {
  readonly secrets: readonly string[]
  readonly principals: readonly Principal[]
}

/**
 * Checks configured secrets. Throws `TypeError` for whatever could never match or could reveal a secret: none at all, an empty one, a repeated one, one that
 * is too long or has the wrong syntax, an id that is a secret. Messages name `option[index]`, counted in the order given; never a value.
 */
export function readTokens(option: string, tokens: Tokens, scheme: string, syntax: SecretSyntax): TokenEntries {
  const entries = tokenEntries(option, tokens)
  if (entries.length === 0) throw new TypeError(`${option} is empty: nobody could be let in`)
  const secrets = entries.map(([secret]) => secret)
  const seen = new Map<string, number>()
  for (const [index, secret] of secrets.entries()) {
    const place = `${option}[${index}]`
    checkSecret(place, secret, syntax)
    const first = seen.get(secret)
    if (first !== undefined) throw new TypeError(`${place} repeats ${option}[${first}]`)
    seen.set(secret, index)
  }
  const derived = deriveIds(scheme, secrets)
  const principals = entries.map(([, id], index) => {
    const place = `${option}[${index}]`
    if (id === undefined) return { id: derived[index] as string, scheme }
    if (seen.has(id)) throw new TypeError(`the principal id of ${place} is one of the secrets`)
    checkId(place, id)
    return { id, scheme }
  })
  return { secrets, principals }
}

export function tokenTable(option: string, tokens: Tokens, scheme: string, syntax: SecretSyntax): CredentialTable {
  const { secrets, principals } = readTokens(option, tokens, scheme, syntax)
  return new CredentialTable(secrets, principals)
}

function tokenEntries(option: string, tokens: Tokens): [secret: string, id: string | undefined][] {
  if (Array.isArray(tokens)) return (tokens as readonly string[]).map((secret) => [secret, undefined])
  if (tokens instanceof Map) return [...tokens]
  if (typeof tokens === 'object' && tokens !== null) return Object.entries(tokens)
  throw new TypeError(`${option} must be a list of secrets, or a Map or object of secret -> principal id`)
}

// Configuration comes from files and from plain JavaScript too, where a number or a missing value is not stopped by the compiler.
function checkSecret(place: string, secret: unknown, syntax: SecretSyntax): void {
  if (typeof secret !== 'string') throw new TypeError(`${place} must be a string`)
  if (secret === '') throw new TypeError(`${place} is an empty string`)
  if (secret.length > MAX_CREDENTIAL_LENGTH) throw new TypeError(`${place} is longer than ${MAX_CREDENTIAL_LENGTH} characters`)
  if (!syntax.pattern.test(secret)) throw new TypeError(`${place} must be ${syntax.description}`)
}

function checkId(place: string, id: unknown): void {
  // Ids end up in log lines and metric labels: a line break in one would forge the next line.
  if (typeof id !== 'string' || id === '' || /\p{Cc}/u.test(id)) throw new TypeError(`the principal id of ${place} must be text without control characters`)
}

/** Ids that tell the secrets apart: eight hex digits of SHA-256, doubled for all of them in the rare case that two secrets share those. */
function deriveIds(scheme: string, secrets: readonly string[]): string[] {
  const digests = secrets.map((secret) => hash('sha256', secret, 'hex'))
  let digits = 8
  while (digits < 64 && new Set(digests.map((digest) => digest.slice(0, digits))).size < digests.length) digits *= 2
  return digests.map((digest) => `${scheme}:${digest.slice(0, digits)}`)
}
