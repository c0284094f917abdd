import {
  type BodySink,
  type BodySource,
  cacheResult,
  combined,
  createHeaders,
  createRequest,
  type Flow,
  type Handler,
  type HeaderMap,
  type ProxyError,
  type ProxyRequest,
  toProxyError,
  toSource
} from '@proxy/pipeline'

export interface PreloadOptions {
  /** Requests at a time. Default 4. */
  readonly concurrency?: number
  /** Fields of every request, for variants: `{ accept: 'image/avif' }`. */
  readonly headers?: Readonly<HeaderMap>
  /** Ends it early: no further requests are made, and those under way are given up. */
  readonly signal?: AbortSignal
  /** Told of each URL when it is done. Must not throw. */
  readonly onResult?: (result: PreloadResult) => void
}

/** What became of one URL. */
export interface PreloadResult {
  readonly url: string
  /** Undefined where there was no answer. */
  readonly status?: number
  /** As in the exchange record: `miss`, `hit`, `revalidated`, … */
  readonly cache?: string
  /** It is in the cache: it was before, or is now. */
  readonly cached: boolean
  readonly bytes: number
  /** Why there was no answer, or why it broke off. */
  readonly error?: ProxyError
}

export interface PreloadSummary {
  readonly requested: number
  readonly cached: number
  /** Answered, and not to be stored. */
  readonly notStored: number
  /** No answer, one that broke off, or a status of 500 or above. */
  readonly failed: number
}

/**
 * Warms a cache: asks `handler` for each URL with GET, reads the answer to its end and forgets it. URLs are whole, as clients ask for them: `https://images.example.org/a.png`.
 * Never more than `concurrency` at a time, nor more of the list read than that. Rejects with TypeError for a URL that is none.
 *
 * @example
 * await preload(handler, ['https://images.example.org/a.png'], { concurrency: 8 })
 */
export async function preload(handler: Handler, urls: Iterable<string> | AsyncIterable<string>, options: PreloadOptions = {}): Promise<PreloadSummary> {
  const { concurrency = 4, onResult, signal } = options
  if (!(Number.isInteger(concurrency) && concurrency > 0)) throw new TypeError('concurrency must be a whole number above 0')
  const summary = { requested: 0, cached: 0, notStored: 0, failed: 0 }
  const list = Symbol.asyncIterator in urls ? urls[Symbol.asyncIterator]() : urls[Symbol.iterator]()
  const work = async (): Promise<void> => {
    for (;;) {
      if (signal?.aborted) return
      const { done, value } = await list.next()
      if (done) return
      const result = await load(handler, value as string, options)
      summary.requested++
      if (result.error !== undefined || (result.status as number) >= 500) summary.failed++
      else if (result.cached) summary.cached++
      else summary.notStored++
      onResult?.(result)
    }
  }
  try {
    await Promise.all(Array.from({ length: concurrency }, work))
  } finally {
    // A list that is read from a file holds it open.
    await list.return?.()
  }
  return summary
}

/** The last member is that of the cache nearest to here (RFC 9211 section 2). */
function storedHere(cacheStatus: string | string[] | undefined): boolean {
  const own = (combined(cacheStatus) ?? '').split(',').at(-1) as string
  return /; stored(?:;|$)/.test(own)
}

async function load(handler: Handler, url: string, { headers, signal }: PreloadOptions): Promise<PreloadResult> {
  const request = requestFor(url, headers, signal)
  let bytes = 0
  try {
    const { status, headers: fields, body } = await handler(request)
    if (body !== null) bytes = await readToEnd(toSource(body), signal)
    const cache = request.exchange.get(cacheResult)
    const cached = (cache !== undefined && cache !== 'miss' && cache !== 'bypass') || storedHere(fields['cache-status'])
    return { url, status, cached, bytes, ...(cache !== undefined && { cache }) }
  } catch (error) {
    return { url, cached: false, bytes, error: toProxyError(error) }
  }
}

function requestFor(url: string, headers: Readonly<HeaderMap> | undefined, signal: AbortSignal | undefined): ProxyRequest {
  const { host, pathname, protocol, search } = URL.canParse(url) ? new URL(url) : ({} as Partial<URL>)
  if (host === undefined || host === '' || (protocol !== 'http:' && protocol !== 'https:')) throw new TypeError(`${JSON.stringify(url)} is no http or https URL`)
  return createRequest({
    scheme: protocol === 'http:' ? 'http' : 'https',
    authority: host,
    target: `${pathname as string}${search as string}`,
    headers: createHeaders(headers),
    ...(signal !== undefined && { signal })
  })
}

/** Resolves to the length of the body; rejects when it breaks off, or `signal` is aborted. */
function readToEnd(source: BodySource, signal: AbortSignal | undefined): Promise<number> {
  return new Promise((resolve, reject) => {
    let bytes = 0
    let flow: Flow | undefined
    const leave = (): void => {
      flow?.abort()
      reject(signal?.reason as Error)
    }
    const done = (): void => signal?.removeEventListener('abort', leave)
    const sink: BodySink = {
      data(chunk) {
        bytes += chunk.byteLength
        return true
      },
      end() {
        done()
        resolve(bytes)
      },
      error(error: ProxyError) {
        done()
        reject(error)
      }
    }
    if (signal?.aborted) {
      source.discard()
      reject(signal.reason as Error)
      return
    }
    signal?.addEventListener('abort', leave)
    flow = source.start(sink)
  })
}
