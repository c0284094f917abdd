import { isUtf8 } from 'node:buffer'
import { hash } from 'node:crypto'
import type { HeaderMap, Principal } from '@proxy/pipeline'
import { authorizationNames, authorizationToken, token68 } from './authorization.ts'
import { MAX_CREDENTIAL_LENGTH } from './constant-time.ts'
import { CredentialTable } from './credential-table.ts'
import { readTokens, type Tokens } from './tokens.ts'
import type { Verifier } from './verifier.ts'

/** User name -> password, as text or as `sha256:` and the 64 hex digits of the SHA-256 of its UTF-8 bytes. */
export type Users = ReadonlyMap<string, string> | Readonly<Record<string, string>>

/** At least one of the two. */
export interface BasicOptions {
  /** A user's name is the principal's id. */
  readonly users?: Users
  /** Tokens that clients send in place of base64, `Authorization: Basic dev-token-123`: compared as they stand. Each token68. */
  readonly rawTokens?: Tokens
}

/**
 * `Authorization: Basic <base64 of user:password>`, RFC 7617, in UTF-8. A name or password that Unicode can write in two ways is accepted composed and decomposed.
 * Throws `TypeError` for names and passwords that are empty, repeated, too long or cannot be sent (a colon in the name, control characters), and for tokens
 * as `createBearerVerifier` does; it names their index, never their value.
 */
export function createBasicVerifier(options: BasicOptions): Verifier {
  const { users, rawTokens } = options
  if (users === undefined && rawTokens === undefined) throw new TypeError('createBasicVerifier needs users or rawTokens: nobody could be let in')
  const sent = new CredentialList()
  const hashed = new CredentialList()
  if (users !== undefined) readUsers(users, sent, hashed)
  if (rawTokens !== undefined) {
    const tokens = readTokens('rawTokens', rawTokens, 'basic', token68)
    for (const [index, secret] of tokens.secrets.entries()) {
      if (sent.secrets.includes(secret)) throw new TypeError(`rawTokens[${index}] is what one of the users sends`)
      sent.add(secret, tokens.principals[index] as Principal)
    }
  }
  return new BasicVerifier(sent.toTable(), hashed.secrets.length === 0 ? undefined : hashed.toTable())
}

class BasicVerifier implements Verifier {
  readonly scheme = 'basic'
  readonly credentialHeader = 'authorization'
  /** By what the client sends: nothing needs decoding per request. */
  readonly #sent: CredentialTable
  /** By `user:digest`. */
  readonly #hashed: CredentialTable | undefined

  constructor(sent: CredentialTable, hashed: CredentialTable | undefined) {
    this.#sent = sent
    this.#hashed = hashed
  }

  verify(headers: HeaderMap): Principal | undefined {
    const token = authorizationToken(headers, 'basic')
    if (token === undefined) return undefined
    const found = this.#sent.match(token)
    // Both tables every time: which of them a user stands in must not show in the time.
    const foundHashed = this.#hashed?.match(hashedForm(token))
    return found ?? foundHashed
  }

  hasCredential(headers: HeaderMap): boolean {
    return authorizationNames(headers, 'basic')
  }

  // https://www.rfc-editor.org/rfc/rfc7617.html#section-2.1
  challenge(quotedRealm: string): string {
    return `Basic realm=${quotedRealm}, charset="UTF-8"`
  }
}

class CredentialList {
  readonly secrets: string[] = []
  readonly principals: Principal[] = []

  add(secret: string, principal: Principal): void {
    this.secrets.push(secret)
    this.principals.push(principal)
  }

  toTable(): CredentialTable {
    return new CredentialTable(this.secrets, this.principals)
  }
}

function readUsers(users: Users, sent: CredentialList, hashed: CredentialList): void {
  if (typeof users !== 'object' || users === null || Array.isArray(users)) throw new TypeError('users must be a Map or an object of user name -> password')
  const entries: [string, string][] = users instanceof Map ? [...users] : Object.entries(users)
  if (entries.length === 0) throw new TypeError('users is empty: nobody could be let in')
  const names = new Map<string, number>()
  for (const [index, [givenName, password]] of entries.entries()) {
    const place = `users[${index}]`
    checkText(`the name of ${place}`, givenName)
    checkText(`the password of ${place}`, password)
    const name = givenName.normalize('NFC')
    if (name.includes(':')) throw new TypeError(`the name of ${place} must not hold a colon (RFC 7617 section 2)`)
    const first = names.get(name)
    if (first !== undefined) throw new TypeError(`${place} has the name of users[${first}]`)
    names.set(name, index)
    const principal: Principal = { id: name, scheme: 'basic' }
    if (password.startsWith('sha256:')) {
      const digest = password.slice('sha256:'.length).toLowerCase()
      if (!/^[0-9a-f]{64}$/.test(digest)) throw new TypeError(`the password of ${place} must be 64 hex digits after sha256:`)
      hashed.add(`${name}:${digest}`, principal)
    } else {
      const credentials = `${name}:${password}`
      const encodings = new Set([toBase64(credentials.normalize('NFC')), toBase64(credentials.normalize('NFD'))])
      for (const encoded of encodings) {
        if (encoded.length > MAX_CREDENTIAL_LENGTH) throw new TypeError(`${place} is longer than ${MAX_CREDENTIAL_LENGTH} characters in base64`)
        sent.add(encoded, principal)
      }
    }
  }
}

function checkText(place: string, text: unknown): void {
  if (typeof text !== 'string' || text === '') throw new TypeError(`${place} must be a string that is not empty`)
  // https://www.rfc-editor.org/rfc/rfc7617.html#section-2 forbids control characters in both.
  if (/\p{Cc}/u.test(text) || !text.isWellFormed()) throw new TypeError(`${place} must be Unicode text without control characters`)
}

function toBase64(text: string): string {
  return Buffer.from(text, 'utf8').toString('base64')
}

/** `user:digest` of what was sent; empty, which is never found, when it is not base64 of `user:password` in UTF-8. */
function hashedForm(token: string): string {
  const bytes = Buffer.from(token, 'base64')
  // Buffer skips what it does not know; only the one canonical spelling of the bytes is a credential.
  if (bytes.toString('base64') !== token || !isUtf8(bytes)) return ''
  const credentials = bytes.toString('utf8').normalize('NFC')
  const colon = credentials.indexOf(':')
  return colon < 0 ? '' : `${credentials.slice(0, colon)}:${hash('sha256', credentials.slice(colon + 1), 'hex')}`
}
