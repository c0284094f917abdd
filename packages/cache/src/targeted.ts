import { combined } from '@proxy/pipeline'
import { parseDictionary } from '@proxy/pipeline/structured-fields'
import { type CacheControl, Directives } from './cache-control.ts'

/**
 * Directives of a targeted field such as CDN-Cache-Control (RFC 9213): a structured dictionary. Undefined when it is none or is empty: it then does not
 * count, and Cache-Control does. A directive whose value is of another type than it should be is ignored.
 */
export function targetedControl(value: string | string[]): CacheControl | undefined {
  const text = combined(value) as string
  if (text.length > MAX_LENGTH) return undefined
  let control = parsed.get(text)
  if (control === undefined) {
    control = parse(text) ?? unusable
    if (parsed.size >= MAX_REMEMBERED) parsed.clear()
    parsed.set(text, control)
  }
  return control === unusable ? undefined : control
}

/** Longer ones are not read. Characters. */
const MAX_LENGTH = 4096
const MAX_REMEMBERED = 256
const unusable = new Directives()
const parsed = new Map<string, CacheControl>()

function parse(text: string): CacheControl | undefined {
  const members = parseDictionary(text)
  if (members === undefined || members.size === 0) return undefined
  const control = new Directives()
  control.isTargeted = true
  for (const [name, { value }] of members) {
    if (value === true) control.add(name, undefined)
    else if (typeof value === 'number') control.add(name, String(value))
    else if (typeof value === 'string' && (name === 'private' || name === 'no-cache')) control.add(name, value)
  }
  return control
}
