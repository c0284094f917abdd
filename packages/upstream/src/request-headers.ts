import { addForwardingHeaders, createHeaders, type ForwardingOptions, type HeaderMap, headersToRaw, isHopByHop, type ProxyRequest } from '@proxy/pipeline'

export interface RequestHeaderRules {
  /** Fields set on every request, replacing the client's: `{ referer: 'https://example.org/' }`. `host` overrides the Host field. */
  readonly set?: Readonly<Record<string, string>>
  /** Fields of the client that are not forwarded. */
  readonly remove?: readonly string[]
}

/** Fields that belong to the request itself, and go to the origin also where the client's other fields do not. So do all of Content-*: they describe the body. */
const ownFields: ReadonlySet<string> = new Set(['range', 'if-none-match', 'if-modified-since', 'if-match', 'if-unmodified-since', 'if-range', 'cache-control', 'pragma', 'x-request-id'])

/** Never forwarded, also when a request that the program made itself carries them: they would change where it goes or how it is framed, or undici refuses it. */
const connectionFields = ['host', 'connection', 'keep-alive', 'proxy-connection', 'te', 'transfer-encoding', 'upgrade', 'expect']
const forwardedFields = ['x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto']

const token = /^[\w!#$%&'*+.^`|~-]+$/
const fieldValue = /^[\t\x20-\x7e\x80-\xff]*$/

/** Makes the fields of a request to the origin. The rules are read once. */
export class RequestHeaderBuilder {
  private readonly set: readonly string[]
  private readonly dropped: ReadonlySet<string>
  private readonly forwardClient: boolean
  private readonly forwarding: ForwardingOptions
  private readonly requestIdHeader: string | undefined

  /** Throws TypeError for rules that cannot be followed. */
  constructor(rules: RequestHeaderRules, forwardClient: boolean, forwarding: ForwardingOptions, requestIdHeader?: string) {
    this.set = Object.entries(rules.set ?? {}).flatMap(([name, value]) => [checkName('requestHeaders.set', name), checkValue(name, value)])
    this.dropped = new Set([...connectionFields, ...(forwarding.xForwarded === false ? forwardedFields : []), ...(rules.remove ?? []).map((name) => name.toLowerCase())])
    this.forwardClient = forwardClient
    this.forwarding = forwarding
    this.requestIdHeader = requestIdHeader === undefined ? undefined : checkName('requestIdHeader', requestIdHeader)
  }

  /** Flat name, value pairs as undici takes them. The client's Host is never among them: the origin gets its own. */
  build(request: ProxyRequest): string[] {
    const headers: HeaderMap = createHeaders()
    const from = request.headers
    for (const name in from) {
      if (this.dropped.has(name) || !(this.forwardClient || ownFields.has(name) || name.startsWith('content-'))) continue
      headers[name] = from[name]
    }
    addForwardingHeaders(headers, request, this.forwarding)
    const { set, requestIdHeader } = this
    const { requestId } = request.exchange
    if (requestIdHeader !== undefined && requestId !== '') headers[requestIdHeader] = requestId
    for (let i = 0; i < set.length; i += 2) headers[set[i] as string] = set[i + 1]
    return headersToRaw(headers)
  }
}

function checkName(option: string, name: string): string {
  const lowerCase = name.toLowerCase()
  if (!token.test(name)) throw new TypeError(`${option}: "${name}" is no field name`)
  if (isHopByHop(lowerCase) || lowerCase === 'content-length') throw new TypeError(`${option}: ${name} belongs to the connection or the body and cannot be set`)
  return lowerCase
}

function checkValue(name: string, value: string): string {
  if (typeof value !== 'string' || !fieldValue.test(value)) throw new TypeError(`requestHeaders.set: the value of ${name} cannot be sent`)
  return value
}
