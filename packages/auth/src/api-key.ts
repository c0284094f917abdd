import { type HeaderMap, isHopByHop, type Principal, single } from '@proxy/pipeline'
import type { CredentialTable } from './credential-table.ts'
import { type SecretSyntax, type Tokens, tokenTable } from './tokens.ts'
import type { Verifier } from './verifier.ts'

export interface ApiKeyOptions {
  /** Accepted keys: printable ASCII, at most 4096 characters, no space at either end. At least one. */
  readonly keys: Tokens
  /** Field that carries the key, in any case. Default `x-api-key`. Not `host` nor a hop-by-hop field: those never arrive in a header map. */
  readonly header?: string
}

const keySyntax: SecretSyntax = { pattern: /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/, description: 'printable ASCII with no space at either end' }

/**
 * A key as the whole value of a field of its own.
 * Throws `TypeError` for keys that are missing, empty, repeated, too long or cannot be sent (it names their index, never their value), and for a field that cannot carry one.
 *
 * @example
 * const admin = createApiKeyVerifier({ keys: { 'c0ffee-7f3a': 'operator' } })
 * admin.verify({ 'x-api-key': 'c0ffee-7f3a' }) // { id: 'operator', scheme: 'api-key' }
 */
export function createApiKeyVerifier(options: ApiKeyOptions): Verifier {
  const header = (options.header ?? 'x-api-key').toLowerCase()
  // https://www.rfc-editor.org/rfc/rfc9110.html#section-5.6.2
  if (!/^[a-z0-9!#$%&'*+\-.^_`|~]+$/.test(header)) throw new TypeError('header must be a field name')
  if (header === 'host' || isHopByHop(header)) throw new TypeError(`header must not be ${header}: it is not among the fields that a handler sees`)
  return new ApiKeyVerifier(header, tokenTable('keys', options.keys, 'api-key', keySyntax))
}

class ApiKeyVerifier implements Verifier {
  readonly scheme = 'api-key'
  readonly credentialHeader: string
  readonly #table: CredentialTable

  constructor(header: string, table: CredentialTable) {
    this.credentialHeader = header
    this.#table = table
  }

  verify(headers: HeaderMap): Principal | undefined {
    const key = single(headers[this.credentialHeader])
    return key === undefined ? undefined : this.#table.match(key)
  }

  hasCredential(headers: HeaderMap): boolean {
    return headers[this.credentialHeader] !== undefined
  }

  // A 401 must carry a challenge (RFC 9110 section 15.5.2); no scheme for keys in a field is registered, so this name is only a hint.
  challenge(quotedRealm: string): string {
    return `ApiKey realm=${quotedRealm}`
  }
}
