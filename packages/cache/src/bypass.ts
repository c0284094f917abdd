import { combined, type ProxyRequest } from '@proxy/pipeline'
import { cookieValues } from './key-rules.ts'

/** Requests that go by the cache. What a rule names must all hold; one rule that fits is enough. */
export interface BypassRule {
  /** The request has this field. Not `host`: that is no field here, but the authority. */
  readonly header?: string
  /** It has this cookie. */
  readonly cookie?: string
  /** Its query has this parameter. */
  readonly query?: string
  /** What the field, the cookie or the parameter says; one of several is enough. Default: anything. */
  readonly value?: string
  /** Its path, as it is or as an origin may read it, is this or lies below it: `/account` is also `/%61ccount` and `//account/me`. */
  readonly path?: string
}

/** Whether a request goes by the cache; undefined where no rule says so of any. Throws TypeError for a rule that names nothing, or several things to have one value. */
export function bypassTest(rules: readonly BypassRule[]): ((request: ProxyRequest) => boolean) | undefined {
  if (rules.length === 0) return undefined
  const normal = rules.map(checked)
  return (request) => normal.some((rule) => fits(rule, request))
}

function checked(rule: BypassRule): BypassRule {
  const { header, cookie, query, value, path } = rule
  const valued = [header, cookie, query].filter((name) => name !== undefined)
  if (valued.length === 0 && path === undefined) throw new TypeError('bypass: a rule names a header, a cookie, a query parameter or a path')
  if (value !== undefined && valued.length !== 1) throw new TypeError('bypass: a value belongs to exactly one of header, cookie and query')
  if (header?.toLowerCase() === 'host') throw new TypeError('bypass: host is no field here')
  return header === undefined ? rule : { ...rule, header: header.toLowerCase() }
}

function fits({ header, cookie, query, value, path }: BypassRule, { headers, target }: ProxyRequest): boolean {
  if (header !== undefined) {
    const found = combined(headers[header])
    if (found === undefined || !says([found], value)) return false
  }
  if (cookie !== undefined && !says(cookieValues(headers, cookie), value)) return false
  if (query !== undefined && !says(parameters(target, query), value)) return false
  return path === undefined || leadsBelow(target, path)
}

function says(found: readonly string[], wanted: string | undefined): boolean {
  return wanted === undefined ? found.length > 0 : found.includes(wanted)
}

function parameters(target: string, name: string): string[] {
  const at = target.indexOf('?')
  return at === -1 ? [] : new URLSearchParams(target.slice(at + 1)).getAll(name)
}

/** Origins differ in how they read a path: it is enough that one could read it so. */
function leadsBelow(target: string, prefix: string): boolean {
  const path = target.split('?', 1)[0] as string
  return isBelow(path, prefix) || (/[%\\;]|\/[./]/.test(path) && isBelow(asRead(path), prefix))
}

function isBelow(path: string, prefix: string): boolean {
  if (!path.startsWith(prefix)) return false
  return path.length === prefix.length || path[prefix.length] === '/' || prefix.endsWith('/')
}

/** Decoded, without parameters of segments, empty segments and dots. */
function asRead(path: string): string {
  let text = path
  // An origin behind another proxy may decode once more.
  for (let round = 0; round < 3 && text.includes('%'); round++) text = text.replace(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
  const segments: string[] = []
  for (const part of text.replaceAll('\\', '/').split('/')) {
    const segment = part.split(';', 1)[0] as string
    if (segment === '..') segments.pop()
    else if (segment !== '' && segment !== '.') segments.push(segment)
  }
  return `/${segments.join('/')}`
}
