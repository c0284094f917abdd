import type { Settings } from './config/schema.ts'

/** Shorter values are no secrets worth the name, and masking them would maim ordinary text. */
const MIN_SECRET_LENGTH = 4

/** A function that puts `***` in place of every secret of the configuration: for error messages of others on their way into a log. */
export function createMask(settings: Settings): (text: string) => string {
  const secrets = new Set<string>()
  const add = (secret: string | undefined): void => {
    if (secret === undefined || secret.length < MIN_SECRET_LENGTH) return
    secrets.add(secret)
    secrets.add(encodeURIComponent(secret))
  }
  const { admin, auth, stores, pools } = settings
  add(admin.key)
  for (const list of [auth?.bearer?.tokens, auth?.basic?.rawTokens, auth?.apiKey?.keys]) for (const entry of list ?? []) add(typeof entry === 'string' ? entry : entry.secret)
  for (const password of Object.values(auth?.basic?.users ?? {})) add(password)
  add(stores.s3?.secretAccessKey)
  add(stores.s3?.accessKeyId)
  add(redisPassword(stores.redis?.url))
  for (const fields of [...Object.values(pools), ...settings.routes].map(({ requestHeaders }) => requestHeaders.set)) {
    for (const [name, value] of Object.entries(fields)) if (/authorization|cookie|key|token|secret/.test(name)) add(value)
  }
  // Longest first: one secret may hold another.
  const ordered = [...secrets].sort((a, b) => b.length - a.length)
  return (text) => {
    let masked = text
    for (const secret of ordered) if (masked.includes(secret)) masked = masked.replaceAll(secret, '***')
    return masked
  }
}

function redisPassword(url: string | undefined): string | undefined {
  const password = url === undefined ? undefined : /^rediss?:\/\/[^/]*?:([^/]*)@/.exec(url)?.[1]
  try {
    return password === undefined ? undefined : decodeURIComponent(password)
  } catch {
    // Not percent-encoded: connecting will say so; masked as it stands.
    return password
  }
}
