import { addForwardingHeaders, createHeaders, type ForwardingOptions, type HeaderMap, headersToRaw, type ProxyRequest } from '@proxy/pipeline'

export interface RequestHeaderRules {
  /** Fields set on every request, replacing the client's: `{ referer: 'https://example.org/' }`. `host` overrides the Host field. */
  readonly set?: Readonly<Record<string, string>>
  /** Fields of the client that are not forwarded. */
  readonly remove?: readonly string[]
}

/** Fields that belong to the request itself, and go to the origin also where the client's other fields do not. */
const ownFields: ReadonlySet<string> = new Set([
  'range',
  'if-none-match',
  'if-modified-since',
  'if-match',
  'if-unmodified-since',
  'if-range',
  'content-type',
  'content-length',
  'content-encoding',
  'cache-control',
  'pragma',
  'x-request-id'
])

/** Makes the fields of a request to the origin. The rules are read once. */
export class RequestHeaderBuilder {
  private readonly set: readonly [string, string][]
  private readonly removed: ReadonlySet<string>
  private readonly forwardClient: boolean
  private readonly forwarding: ForwardingOptions

  constructor(rules: RequestHeaderRules, forwardClient: boolean, forwarding: ForwardingOptions) {
    this.set = Object.entries(rules.set ?? {}).map(([name, value]) => [name.toLowerCase(), value])
    this.removed = new Set((rules.remove ?? []).map((name) => name.toLowerCase()))
    this.forwardClient = forwardClient
    this.forwarding = forwarding
  }

  /** Flat name, value pairs as undici takes them. The client's Host is never among them: the origin gets its own. */
  build(request: ProxyRequest): string[] {
    const headers: HeaderMap = createHeaders()
    const from = request.headers
    for (const name in from) {
      if (this.removed.has(name) || (!this.forwardClient && !ownFields.has(name))) continue
      headers[name] = from[name]
    }
    addForwardingHeaders(headers, request, this.forwarding)
    for (const [name, value] of this.set) headers[name] = value
    return headersToRaw(headers)
  }
}
