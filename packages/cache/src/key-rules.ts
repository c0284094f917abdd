import { combined, type HeaderMap, type ProxyRequest } from '@proxy/pipeline'
import { Negotiation, type NegotiationOptions } from './negotiation.ts'
import type { CacheMeta } from './store.ts'

/** Which parameters of the query tell one response from another. In lists, `*` at the end of a name stands for any text; what is listed counts in any order. */
export type QueryKey = 'all' | 'sorted' | 'none' | { readonly only: readonly string[] } | { readonly except: readonly string[] }

/** What tells one stored response from another, beside the path. */
export interface KeyOptions extends NegotiationOptions {
  /** Default true. False: all hosts share what is stored. */
  readonly host?: boolean
  /** Default `all`, as it was sent. The origin is sent the whole query in any case: what it answers must not depend on parameters that do not count. */
  readonly query?: QueryKey
  /** Request fields whose values count, as if every answer named them in Vary. */
  readonly headers?: readonly string[]
  /** Cookies whose values count. Default none. */
  readonly cookies?: readonly string[]
}

type Parameters = (query: string) => string

/** Makes keys by `KeyOptions`. Throws TypeError for names that are none. */
export class KeyRules {
  /** What counts beside the URL, in the form of a `VaryIndex`: field names, and `cookie:NAME`. Sorted. */
  readonly fields: readonly string[]
  readonly negotiation: Negotiation
  private readonly prefix: string
  private readonly anyHost: boolean
  private readonly parameters: Parameters | undefined

  constructor(namespace: string, options: KeyOptions = {}) {
    this.prefix = `${namespace}|`
    this.negotiation = new Negotiation(options)
    this.anyHost = options.host === false
    this.parameters = parametersOf(options.query ?? 'all')
    const headers = (options.headers ?? []).map((name) => checked('headers', name, fieldName).toLowerCase())
    if (headers.includes('host')) throw new TypeError('key.headers: host is no field here, it counts unless key.host is false')
    const cookies = (options.cookies ?? []).map((name) => `cookie:${checked('cookies', name, cookieName)}`)
    this.fields = [...new Set([...headers, ...cookies])].sort()
  }

  /** Namespace, scheme, authority, path and query, as far as they count. GET and HEAD share it. */
  key({ scheme, authority, target }: ProxyRequest): string {
    return this.prefix + this.url(scheme, authority, target)
  }

  keyOf(scheme: string, authority: string, target: string): string {
    return this.prefix + this.url(scheme, authority, target)
  }

  /** Whether what is stored under a base key was stored with these fields in mind: a configuration may have gained some since. */
  tellsApart({ vary }: CacheMeta): boolean {
    return this.fields.length === 0 || (vary !== undefined && this.fields.every((name) => vary.fields.includes(name)))
  }

  /** The URL of a key that this has made, in the key's own memory. */
  urlOf(key: string): string {
    return key.slice(this.prefix.length)
  }

  /** The URL as far as it counts. Without hosts, their place is taken by `*`. */
  url(scheme: string, authority: string, target: string): string {
    const host = this.anyHost ? '*' : withoutDefaultPort(scheme, authority)
    const at = this.parameters === undefined ? -1 : target.indexOf('?')
    if (at === -1) return `${scheme}://${host}${target}`
    const query = (this.parameters as Parameters)(target.slice(at + 1))
    return `${scheme}://${host}${target.slice(0, at)}${query === '' ? '' : `?${query}`}`
  }
}

/** An explicit default port is the same URL (RFC 9110 section 4.2.3). */
function withoutDefaultPort(scheme: string, authority: string): string {
  const port = scheme === 'https' ? ':443' : ':80'
  return authority.endsWith(port) ? authority.slice(0, -port.length) : authority
}

/** Value of what a key or a Vary names: a field, or (`cookie:NAME`) a cookie. */
export function selectingValue(headers: Readonly<HeaderMap>, name: string): string | undefined {
  return name.startsWith('cookie:') ? cookieValue(headers, name.slice(7)) : combined(headers[name])
}

/** Where a cookie is sent twice, both values count: nobody knows which one the origin takes. */
function cookieValue(headers: Readonly<HeaderMap>, name: string): string | undefined {
  const values = cookieValues(headers, name)
  return values.length === 0 ? undefined : values.join(', ')
}

export function cookieValues(headers: Readonly<HeaderMap>, name: string): string[] {
  const text = combined(headers.cookie)
  if (text === undefined) return []
  const values: string[] = []
  for (const pair of text.split(/[;,]/)) {
    const at = pair.indexOf('=')
    if (at !== -1 && pair.slice(0, at).trim() === name) values.push(pair.slice(at + 1).trim())
  }
  return values
}

const fieldName = /^[\w!#$%&'*+.^`|~-]+$/
const cookieName = fieldName

function checked(option: string, name: string, pattern: RegExp): string {
  if (!pattern.test(name)) throw new TypeError(`key.${option}: ${JSON.stringify(name)} is no name`)
  return name
}

function parametersOf(rule: QueryKey): Parameters | undefined {
  if (rule === 'all') return undefined
  if (rule === 'none') return () => ''
  if (rule === 'sorted') return (query) => sorted(query, () => true)
  if ('only' in rule) {
    const listed = matcher(rule.only)
    return (query) => sorted(query, listed)
  }
  const listed = matcher(rule.except)
  return (query) => sorted(query, (name) => !listed(name))
}

function matcher(names: readonly string[]): (name: string) => boolean {
  const exact = new Set(names.filter((name) => !name.endsWith('*')))
  const starts = names.filter((name) => name.endsWith('*')).map((name) => name.slice(0, -1))
  return (name) => exact.has(name) || starts.some((start) => name.startsWith(start))
}

/** The parameters that count, by name; those of one name stay in their order. */
function sorted(query: string, counts: (name: string) => boolean): string {
  const kept: { readonly name: string; readonly text: string }[] = []
  for (const text of query.split('&')) {
    if (text === '') continue
    const at = text.indexOf('=')
    const name = decoded(at === -1 ? text : text.slice(0, at))
    if (counts(name)) kept.push({ name, text })
  }
  kept.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0))
  return kept.map(({ text }) => text).join('&')
}

/** Origins read `%77` and `w` alike: a name must not count, or not count, by how it is written. */
function decoded(name: string): string {
  if (!name.includes('%') && !name.includes('+')) return name
  try {
    return decodeURIComponent(name.replaceAll('+', ' '))
  } catch {
    // Not well-formed: it is its own name.
    return name
  }
}
