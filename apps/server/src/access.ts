import { authenticate, createApiKeyVerifier, createBasicVerifier, createBearerVerifier, type Verifier } from '@proxy/auth'
import type { Middleware } from '@proxy/pipeline'
import type { AuthSettings } from './config/schema-access.ts'

type Secrets = NonNullable<AuthSettings['bearer']>['tokens']

/** One verifier for the secrets that name their owner, one for the others. */
function perNaming(secrets: Secrets, create: (tokens: readonly string[] | ReadonlyMap<string, string>) => Verifier): Verifier[] {
  const anonymous = secrets.filter((entry) => typeof entry === 'string')
  const named = secrets.filter((entry) => typeof entry !== 'string')
  const owners = new Map(named.map(({ secret, name }) => [secret, name]))
  if (owners.size < named.length || anonymous.some((secret) => owners.has(secret))) throw new TypeError('a secret is listed twice')
  return [...(anonymous.length > 0 ? [create(anonymous)] : []), ...(named.length > 0 ? [create(owners)] : [])]
}

function createVerifiers({ bearer, basic, apiKey }: AuthSettings): Verifier[] {
  const verifiers: Verifier[] = []
  if (bearer !== undefined) verifiers.push(...perNaming(bearer.tokens, (tokens) => createBearerVerifier({ tokens })))
  if (basic !== undefined) {
    const { users, rawTokens } = basic
    if (users !== undefined || rawTokens === undefined) verifiers.push(createBasicVerifier(users === undefined ? {} : { users }))
    if (rawTokens !== undefined) verifiers.push(...perNaming(rawTokens, (tokens) => createBasicVerifier({ rawTokens: tokens })))
  }
  if (apiKey !== undefined) verifiers.push(...perNaming(apiKey.keys, (keys) => createApiKeyVerifier({ keys, header: apiKey.header })))
  return verifiers
}

/** Throws TypeError, naming no secret, for secrets that could never match and for a realm that cannot be sent. */
export function authLayer(settings: AuthSettings): Middleware {
  return authenticate({ verifiers: createVerifiers(settings), realm: settings.realm })
}
