import type { HeaderMap, Principal } from '@proxy/pipeline'

/** Tells from header fields who a client is. Knows nothing of requests; holds no state that changes. */
export interface Verifier {
  /** Also `Principal.scheme`: `bearer`, `basic`, `api-key`. */
  readonly scheme: string
  /** Lower-case name of the field that carries the credential, and that must not travel further once it was accepted. */
  readonly credentialHeader: string
  /** Who the credential in `headers` belongs to; undefined when there is none or it is wrong in any way. Synchronous; never throws. */
  verify(headers: HeaderMap): Principal | undefined
  /** Whether `headers` carry a credential of this kind at all, right or wrong. What is meant for someone else (another Authorization scheme) does not count. */
  hasCredential(headers: HeaderMap): boolean
  /** One line of WWW-Authenticate. `quotedRealm` is ready to be sent, quotes included; `rejected` says that a credential of this kind was sent and refused. */
  challenge(quotedRealm: string, rejected: boolean): string
}

/** Several verifiers, any of which may recognise the client. */
export interface AnyOf {
  readonly verifiers: readonly Verifier[]
  /** The principal of the first verifier that recognises the client, in the order given. */
  verify(headers: HeaderMap): Principal | undefined
}

/** Joins verifiers. Throws `TypeError` when there are none. */
export function anyOf(...parts: readonly (Verifier | AnyOf)[]): AnyOf {
  const verifiers = parts.flatMap((part) => ('verifiers' in part ? part.verifiers : [part]))
  if (verifiers.length === 0) throw new TypeError('anyOf needs at least one verifier: nobody could be let in')
  return {
    verifiers,
    verify(headers) {
      for (const verifier of verifiers) {
        const found = verifier.verify(headers)
        if (found !== undefined) return found
      }
      return undefined
    }
  }
}
