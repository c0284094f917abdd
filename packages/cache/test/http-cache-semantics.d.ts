/** The parts of http-cache-semantics 4.3.0 that the differential test uses; the package has no declarations of its own. */
declare module 'http-cache-semantics' {
  interface Message {
    readonly headers: Readonly<Record<string, string>>
  }
  export default class CachePolicy {
    constructor(request: Message & { readonly method: string }, response: Message & { readonly status: number }, options?: { readonly shared?: boolean })
    /** Cache-Control of the response and of the request, as it has read them. */
    readonly _rescc: Readonly<Record<string, string | true>>
    readonly _reqcc: Readonly<Record<string, string | true>>
    now(): number
    storable(): boolean
    /** Seconds. */
    maxAge(): number
    /** Seconds. */
    age(): number
    evaluateRequest(request: Message & { readonly method: string }): { readonly response: unknown }
  }
}
