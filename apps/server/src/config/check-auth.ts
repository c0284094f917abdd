import { createApiKeyVerifier, createBasicVerifier, createBearerVerifier } from '@proxy/auth'
import type { KeyPath } from './errors.ts'
import type { AuthSettings } from './schema-access.ts'

type Secrets = NonNullable<AuthSettings['bearer']>['tokens']

/** Tries every secret by itself, so that a complaint names its key; `trial` collects what is thrown for a path. Never repeats a secret. */
export function checkAuth({ bearer, basic, apiKey }: AuthSettings, trial: (path: KeyPath, make: () => unknown) => void): void {
  const each = (path: KeyPath, secrets: Secrets, create: (tokens: readonly string[]) => unknown): void => {
    const seen = new Map<string, number>()
    for (const [index, entry] of secrets.entries()) {
      const secret = typeof entry === 'string' ? entry : entry.secret
      const first = seen.get(secret)
      seen.set(secret, first ?? index)
      trial([...path, index], () => {
        if (first !== undefined) throw new TypeError(`is the same as entry ${first}: a secret is listed twice`)
        return unnumbered(() => create([secret]))
      })
    }
  }
  if (bearer !== undefined) each(['auth', 'bearer', 'tokens'], bearer.tokens, (tokens) => createBearerVerifier({ tokens }))
  for (const [name, password] of Object.entries(basic?.users ?? {})) trial(['auth', 'basic', 'users', name], () => unnumbered(() => createBasicVerifier({ users: new Map([[name, password]]) })))
  if (basic?.rawTokens !== undefined) each(['auth', 'basic', 'rawTokens'], basic.rawTokens, (rawTokens) => createBasicVerifier({ rawTokens }))
  if (apiKey !== undefined) each(['auth', 'apiKey', 'keys'], apiKey.keys, (keys) => createApiKeyVerifier({ keys, header: apiKey.header }))
}

/** The path says already which one it is. */
function unnumbered(make: () => unknown): unknown {
  try {
    return make()
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    throw new TypeError(error.message.replace(/^(?:tokens|keys|rawTokens|users)\[0\] /, '').replace(/ of users\[0\] /, ' '), { cause: error })
  }
}
