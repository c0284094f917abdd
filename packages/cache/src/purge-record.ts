import type { PurgeRecord, PurgeScope } from './purge-log.ts'

const scopes: ReadonlySet<unknown> = new Set<PurgeScope>(['url', 'prefix', 'tag', 'all'])

/** A record as one line of text, the same for equal records: how logs outside memory keep it. */
export function encodePurgeRecord({ scope, value, namespace, at, soft }: PurgeRecord): string {
  return JSON.stringify([scope, value, namespace ?? null, at, soft])
}

/** The record in a line that `encodePurgeRecord` made; undefined for any other text. */
export function decodePurgeRecord(text: string): PurgeRecord | undefined {
  let fields: unknown
  try {
    fields = JSON.parse(text)
  } catch {
    // somebody else's text
    return undefined
  }
  if (!Array.isArray(fields) || fields.length !== 5) return undefined
  const [scope, value, namespace, at, soft] = fields as unknown[]
  if (!scopes.has(scope) || typeof value !== 'string' || typeof at !== 'number' || typeof soft !== 'boolean') return undefined
  if (namespace === null) return { scope: scope as PurgeScope, value, at, soft }
  return typeof namespace === 'string' ? { scope: scope as PurgeScope, value, namespace, at, soft } : undefined
}
