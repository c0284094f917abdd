import { createHeaders, derive, type HeaderMap, type Middleware, type Principal, type ProxyRequest, type ProxyResponse, principal, toProxyError, WholeBody, withContext } from '@proxy/pipeline'
import { quoteRealm } from './challenge.ts'
import { type AnyOf, anyOf, type Verifier } from './verifier.ts'

/** Who may come in: one verifier, or several of which any may recognise the client. */
export type VerifierOptions = { readonly verifier: Verifier | AnyOf; readonly verifiers?: undefined } | { readonly verifiers: readonly (Verifier | AnyOf)[]; readonly verifier?: undefined }

export type AuthenticateOptions = VerifierOptions & AuthenticateSettings

export interface AuthenticateSettings {
  /** Named in WWW-Authenticate. Printable ASCII. Default `proxy`. */
  readonly realm?: string
  /** Lets requests without a credential pass, without a principal. A wrong credential is still refused. Default false. */
  readonly optional?: boolean
  /** Sends accepted credentials on to the next handler. Default false: they are removed. */
  readonly forwardCredentials?: boolean
  /** Requests that need no credential, a health check for example. They pass without a principal, whatever they carry; accepted credentials are still removed. */
  readonly exempt?: (request: ProxyRequest) => boolean
}

const unauthorizedBody = new WholeBody('Unauthorized')

/**
 * Lets a request pass when a verifier recognises its client, with `principal` in its context and without the credential; answers 401 to all others.
 * Never logs, and never tells a client what was wrong. Throws `TypeError` when there is no verifier, or for a realm that cannot be sent.
 *
 * @example
 * const guarded = authenticate({ verifier: createBearerVerifier({ tokens }) })(handler)
 */
export function authenticate(options: AuthenticateOptions): Middleware {
  if ((options.verifier === undefined) === (options.verifiers === undefined)) throw new TypeError('authenticate needs either verifier or verifiers')
  const { verifiers } = anyOf(...(options.verifiers ?? [options.verifier]))
  const quotedRealm = quoteRealm(options.realm ?? 'proxy')
  const { optional = false, forwardCredentials = false, exempt } = options

  return (next) =>
    function authenticated(request) {
      const sent = request.headers
      let headers = sent
      let who: Principal | undefined
      let exempted = false
      try {
        // Only `true` exempts: a promise, from an `async` function given by mistake, must not open the door.
        exempted = exempt?.(request) === true
        // All of them, also after a match: whatever is good here must not reach the origin.
        for (const verifier of verifiers) {
          const found = verifier.verify(sent)
          if (found === undefined) continue
          // The same of a verifier.
          if (typeof found.id !== 'string') throw new TypeError('a verifier must return a principal, synchronously')
          who ??= found
          if (!forwardCredentials) headers = without(headers, verifier.credentialHeader)
        }
        if (who === undefined && !exempted && !(optional && !hasCredential(verifiers, sent))) {
          return Promise.resolve(unauthorized(verifiers, quotedRealm, sent))
        }
      } catch (error) {
        // `exempt` and verifiers of one's own may throw; a handler answers by its promise alone.
        return Promise.reject(toProxyError(error))
      }
      if (who === undefined) return next(request)
      if (exempted) return next(headers === sent ? request : derive(request, { headers }))
      const context = request.context.with(principal, who)
      return next(headers === sent ? withContext(request, context) : derive(request, { headers, context }))
    }
}

function hasCredential(verifiers: readonly Verifier[], headers: HeaderMap): boolean {
  return verifiers.some((verifier) => verifier.hasCredential(headers))
}

/** A copy without one field: `delete` would turn the map into a slow one. */
function without(headers: HeaderMap, name: string): HeaderMap {
  if (headers[name] === undefined) return headers
  const kept = createHeaders()
  for (const field in headers) if (field !== name) kept[field] = headers[field]
  return kept
}

function unauthorized(verifiers: readonly Verifier[], quotedRealm: string, sent: HeaderMap): ProxyResponse {
  const challenges: string[] = []
  for (const verifier of verifiers) {
    const challenge = verifier.challenge(quotedRealm, verifier.hasCredential(sent))
    if (!challenges.includes(challenge)) challenges.push(challenge)
  }
  const headers = createHeaders()
  headers['content-type'] = 'text/plain; charset=utf-8'
  headers['content-length'] = String(unauthorizedBody.length)
  headers['cache-control'] = 'no-store'
  headers['www-authenticate'] = challenges.length === 1 ? (challenges[0] as string) : challenges
  return { status: 401, headers, body: unauthorizedBody }
}
