import type { HeaderMap, Principal } from '@proxy/pipeline'
import { authorizationNames, authorizationToken, token68 } from './authorization.ts'
import type { CredentialTable } from './credential-table.ts'
import { type Tokens, tokenTable } from './tokens.ts'
import type { Verifier } from './verifier.ts'

export interface BearerOptions {
  /** Accepted tokens, each token68 and at most 4096 characters. At least one. */
  readonly tokens: Tokens
}

/**
 * `Authorization: Bearer <token>`, RFC 6750 section 2.1. Tokens in the query or in a form body (sections 2.2 and 2.3) are not read.
 * Throws `TypeError` for tokens that are missing, empty, repeated, too long or not token68; it names their index, never their value.
 *
 * @example
 * const verifier = createBearerVerifier({ tokens: { 'mF_9.B5f-4.1JqM': 'alice' } })
 * verifier.verify({ authorization: 'Bearer mF_9.B5f-4.1JqM' }) // { id: 'alice', scheme: 'bearer' }
 */
export function createBearerVerifier(options: BearerOptions): Verifier {
  return new BearerVerifier(tokenTable('tokens', options.tokens, 'bearer', token68))
}

class BearerVerifier implements Verifier {
  readonly scheme = 'bearer'
  readonly credentialHeader = 'authorization'
  readonly #table: CredentialTable

  constructor(table: CredentialTable) {
    this.#table = table
  }

  verify(headers: HeaderMap): Principal | undefined {
    const token = authorizationToken(headers, 'bearer')
    return token === undefined ? undefined : this.#table.match(token)
  }

  hasCredential(headers: HeaderMap): boolean {
    return authorizationNames(headers, 'bearer')
  }

  // https://www.rfc-editor.org/rfc/rfc6750.html#section-3: no error code for a client that has sent no token
  challenge(quotedRealm: string, rejected: boolean): string {
    return rejected ? `Bearer realm=${quotedRealm}, error="invalid_token"` : `Bearer realm=${quotedRealm}`
  }
}
