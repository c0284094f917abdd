import { combined, type ProxyRequest, principal } from '@proxy/pipeline'
import { networkOf } from './ipv6.ts'

/** Who a request is counted for. `undefined`: nobody, the request is not limited. */
export type KeyFunction = (request: ProxyRequest) => string | undefined

export interface ClientAddressOptions {
  /** Leading bits of an IPv6 address that make one client, 1 to 128. Default 64: a customer is given at least that much and can use any address in it. */
  readonly ipv6PrefixBits?: number
}

/** The client's address, without a port, from `request.remoteAddress`. IPv6 addresses count by network. Throws RangeError for a prefix out of range. */
export function byClientAddress(options?: ClientAddressOptions): KeyFunction {
  const bits = options?.ipv6PrefixBits ?? 64
  if (!Number.isInteger(bits) || bits < 1 || bits > 128) throw new RangeError(`ipv6PrefixBits must be a whole number from 1 to 128, not ${bits}`)
  return (request) => networkOf(request.remoteAddress, bits)
}

/**
 * The value of a request field, as the client sent it: only for fields that somebody in front has checked, as who may choose the value has a new limit with each.
 * A request without the field is not limited.
 */
export function byHeader(name: string): KeyFunction {
  const lowerCaseName = name.toLowerCase()
  return (request) => combined(request.headers[lowerCaseName])
}

/** Who the request was authenticated as (`principal` of the context), else the client's address. A principal never shares a limit with an address. */
export function byPrincipal(options?: ClientAddressOptions): KeyFunction {
  const byAddress = byClientAddress(options)
  return (request) => {
    const who = request.context.get(principal)
    return who === undefined ? byAddress(request) : `@${who.id}`
  }
}

/** All of several: one limit for each combination. A part that gives nothing counts as such; when none gives anything, the request is not limited. */
export function composite(...parts: readonly KeyFunction[]): KeyFunction {
  return (request) => {
    let key = ''
    let known = false
    for (const part of parts) {
      const value = part(request)
      // The length in front keeps "a" + "bc" apart from "ab" + "c", whatever characters a client puts in.
      key += value === undefined ? '-' : `${value.length}:${value}`
      known ||= value !== undefined
    }
    return known ? key : undefined
  }
}
