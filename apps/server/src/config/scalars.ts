import { isIP } from 'node:net'
import { isHopByHop } from '@proxy/pipeline'
import { z } from 'zod'
import { formatDuration, parseDuration, parseSize } from './units.ts'

/** A timer of Node set to more than 2^31 - 1 ms fires at once: 24 days are within. */
const MAX_TIMER_MS = 24 * 86_400_000

const wantsDuration = 'is a duration: a number with a unit, such as "30s", "250ms", "1h30m" or "7d"'
const wantsSize = 'is a size: a number with a unit, such as "64KB", "1.5GiB" or "512B"'

/** What a plain number gets to hear, so that nobody's seconds become milliseconds. */
const withUnit =
  (wants: string) =>
  ({ input }: { readonly input?: unknown }): string | undefined =>
    input === undefined ? undefined : `${wants}${typeof input === 'number' ? `; ${input} has no unit` : ''}`

function durationWithin(minMs: number, maxMs: number) {
  return z.string({ error: withUnit(wantsDuration) }).transform((text, context): number => {
    const ms = parseDuration(text)
    const message =
      ms === undefined
        ? `${wantsDuration}, not ${JSON.stringify(text)}`
        : ms < minMs
          ? `must be at least ${formatDuration(minMs)}`
          : ms > maxMs
            ? `must be at most ${formatDuration(maxMs)}`
            : undefined
    if (message === undefined) return ms as number
    context.addIssue({ code: 'custom', message })
    return z.NEVER
  })
}

/** A lifetime, `0s` allowed; milliseconds once resolved. */
export const lifetime = () => durationWithin(0, 100 * 365 * 86_400_000)
/** A time that something waits for; milliseconds once resolved. */
export const timeout = () => durationWithin(1, MAX_TIMER_MS)

/** A size; bytes once resolved. */
export const size = (minBytes = 1) =>
  z.string({ error: withUnit(wantsSize) }).transform((text, context): number => {
    const bytes = parseSize(text)
    if (bytes !== undefined && bytes >= minBytes) return bytes
    context.addIssue({ code: 'custom', message: bytes === undefined ? `${wantsSize}, not ${JSON.stringify(text)}` : `must be at least ${minBytes} bytes` })
    return z.NEVER
  })

export const count = (min: number, max = 1_000_000_000) => z.int().min(min).max(max)

/** Text that is not empty. Never repeated in a message: it may be a secret. */
export const text = () => z.string({ error: ({ input }) => (typeof input === 'number' || typeof input === 'boolean' ? 'must be text: put it in quotes' : undefined) }).min(1, { abort: true })

/** Text for which `problem` finds nothing to say. */
export const textThat = (problem: (text: string) => string | undefined) =>
  text().superRefine((value, context) => {
    const message = problem(value)
    if (message !== undefined) context.addIssue({ code: 'custom', message })
  })

/** `scheme://host[:port]` of http or https, as `URL.origin` writes it. A message repeats the URL without its user and password. */
export const origin = () => textThat(originProblem).transform((value) => new URL(value).origin)

function originProblem(value: string): string | undefined {
  const url = URL.canParse(value) ? new URL(value) : undefined
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:'))
    return `is a URL such as http://10.0.0.7:8080 or https://images.example.org, not ${JSON.stringify(withoutUserinfo(value))}`
  if (url.username !== '' || url.password !== '') return 'must not hold a user or password: set the Authorization field in requestHeaders'
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '')
    // With an @ it is rather a password with a slash in it.
    return value.includes('@') ? 'must end after the host and port' : `must end after the host and port: ${url.origin} instead of ${url.origin}${url.pathname}`
  return undefined
}

/** All up to the last @ is cut: in what is no URL, nobody can say where a password begins, and it may hold any character. */
function withoutUserinfo(text: string): string {
  const at = text.lastIndexOf('@')
  return at === -1 ? text : `***${text.slice(at)}`
}

/** A field name (RFC 9110 section 5.1), lower-case once resolved. */
export const fieldName = () => textThat((value) => (/^[a-z0-9!#$%&'*+\-.^_`|~]+$/i.test(value) ? undefined : 'is no name of a header field')).transform((value) => value.toLowerCase())

/** A field value (RFC 9110 section 5.5). Never repeated in a message: it may be a secret. */
export const fieldValue = () =>
  textThat((value) => (/^[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?$/.test(value) ? undefined : 'is no value of a header field: printable ASCII with no space at either end is wanted'))

/** An address or host name to listen on. */
export const listenHost = () => textThat((value) => (isIP(value) !== 0 || /^[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?$/i.test(value) ? undefined : 'is no address or host name'))

/** A host to match: a name or an address, no port; `*.example.org` for every name below. Lower-case once resolved. */
export const matchHost = () =>
  textThat((value) =>
    /^(?:\*\.)?[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?$|^\[[0-9a-f:.]+\]$/i.test(value) ? undefined : 'is a host name without a port: "images.example.org", or "*.example.org" for all names below it'
  ).transform((value) => value.toLowerCase())

/** A path prefix to match, of the characters a request target can hold. */
export const pathPrefix = () =>
  textThat((value) => {
    if (!value.startsWith('/')) return 'is a path and begins with "/"'
    if (/[?#*\\%]/.test(value) || !/^[!-~]+$/.test(value)) return 'is a plain path prefix: no "?", "#", "*", "%" or spaces; all paths that begin with it match'
    return /\/\/|\/\.{1,2}(?:\/|$)/.test(value) ? 'must not hold "//", "/." or "/.."' : undefined
  })

/** A field that may be set: not one that belongs to the connection or says where the body ends, which are the server's to write. */
export const writableFieldName = () => fieldName().refine((name) => !isHopByHop(name) && name !== 'content-length', 'is written by the server itself')

/** Field name -> value. */
export const fields = () => z.record(writableFieldName(), fieldValue())

/** Fields for a target: as `fields`, and a Host that is one. */
export const targetFields = () =>
  fields().superRefine(({ host }, context) => {
    if (host !== undefined && !/^(?:[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::\d{1,5})?$/i.test(host))
      context.addIssue({ code: 'custom', path: ['host'], message: 'is a host with an optional port' })
  })

/** Fields for a route: as `fields`, without Host, which is no field there but the authority of the request. */
export const routeFields = () =>
  fields().superRefine(({ host }, context) => {
    if (host !== undefined) context.addIssue({ code: 'custom', path: ['host'], message: 'has no effect on a route: set it in requestHeaders of the pool' })
  })

/** A whole URL of http or https. */
export const httpUrl = () =>
  textThat((value) =>
    /^https?:\/\/[^/\s@]/i.test(value) && URL.canParse(value) ? undefined : `is a whole URL such as https://images.example.org/a.png, not ${JSON.stringify(withoutUserinfo(value))}`
  )
