import type { ProxyRequest } from '@proxy/pipeline'
import { combined } from '@proxy/pipeline'
import { cookieValue } from './key-rules.ts'

/** Requests that go by the cache. What a rule names must all hold; one rule that fits is enough. */
export interface BypassRule {
  /** The request has this field. */
  readonly header?: string
  /** It has this cookie. */
  readonly cookie?: string
  /** Its query has this parameter. */
  readonly query?: string
  /** What the field, the cookie or the parameter says. Default: anything. */
  readonly value?: string
  /** Its path is this, or lies below it: `/account`. */
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
  return header === undefined ? rule : { ...rule, header: header.toLowerCase() }
}

function fits({ header, cookie, query, value, path }: BypassRule, { headers, target }: ProxyRequest): boolean {
  if (header !== undefined && !says(combined(headers[header]), value)) return false
  if (cookie !== undefined && !says(cookieValue(headers, cookie), value)) return false
  if (query !== undefined && !says(parameter(target, query), value)) return false
  return path === undefined || isBelow(target, path)
}

function says(found: string | undefined, wanted: string | undefined): boolean {
  return found !== undefined && (wanted === undefined || found === wanted)
}

function parameter(target: string, name: string): string | undefined {
  const at = target.indexOf('?')
  return at === -1 ? undefined : (new URLSearchParams(target.slice(at + 1)).get(name) ?? undefined)
}

function isBelow(target: string, prefix: string): boolean {
  if (!target.startsWith(prefix)) return false
  const after = target[prefix.length]
  return after === undefined || after === '?' || after === '/' || prefix.endsWith('/')
}
