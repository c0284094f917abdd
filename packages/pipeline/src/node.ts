import type { IncomingMessage, ServerResponse } from 'node:http'
import { errorResponse, type ProxyError, toProxyError } from './errors.ts'
import { TrustedProxies } from './forwarding.ts'
import { NodeRequest } from './node-request.ts'
import { type SendObserver, type SendOutcome, sendResponse } from './node-response.ts'
import type { Handler, ProxyRequest, ProxyResponse } from './types.ts'

export type { SendOutcome } from './node-response.ts'

export interface ToNodeOptions {
  /** Peers that may speak for their clients by X-Forwarded-For and -Proto: addresses or CIDR blocks. Default: none. */
  readonly trustedProxies?: readonly string[]
  /** Name of this proxy in Proxy-Status. Default `proxy`. */
  readonly proxyName?: string
  /**
   * Told once per request, when its answer was handed to the socket or will never be. `request` is undefined when the message was refused before it became one.
   * `status` is what was sent. Must not throw.
   */
  readonly onDone?: (request: ProxyRequest | undefined, status: number, outcome: SendOutcome, error: ProxyError | undefined) => void
}

/**
 * A handler as a listener of node:http, for `http.createServer`, Express (`app.use`) and, after `reply.hijack()`, Fastify.
 * Answers every request itself, failures too, and never throws.
 */
export function toNode(handler: Handler, options: ToNodeOptions = {}): (incoming: IncomingMessage, outgoing: ServerResponse) => void {
  const trusted = new TrustedProxies(options.trustedProxies)
  const { onDone } = options

  const deliver = (response: ProxyResponse, outgoing: ServerResponse, request: NodeRequest | undefined, cause: ProxyError | undefined): void => {
    const method = request === undefined ? 'GET' : request.method
    sendResponse(response, outgoing, method, onDone === undefined ? undefined : new DoneObserver(onDone, request, response.status, cause))
  }

  const fail = (error: unknown, outgoing: ServerResponse, request: NodeRequest | undefined): void => {
    const failure = toProxyError(error)
    if (outgoing.headersSent || outgoing.destroyed) {
      outgoing.destroy()
      onDone?.(request, failure.status, 'aborted', failure)
      return
    }
    const response = errorResponse(failure, options)
    // A message that was refused as malformed may be followed by bytes that mean something else to us than to its sender.
    if (request === undefined && outgoing.req.httpVersionMajor < 2) response.headers.connection = 'close'
    deliver(response, outgoing, request, failure)
  }

  // Never rejects: whatever is thrown becomes an answer or the end of the connection.
  const serve = async (request: NodeRequest, outgoing: ServerResponse): Promise<void> => {
    try {
      deliver(await handler(request), outgoing, request, undefined)
    } catch (error) {
      fail(error, outgoing, request)
    }
  }

  return (incoming, outgoing) => {
    let request: NodeRequest
    try {
      request = new NodeRequest(incoming, outgoing, trusted)
    } catch (error) {
      fail(error, outgoing, undefined)
      return
    }
    void serve(request, outgoing)
  }
}

class DoneObserver implements SendObserver {
  private readonly onDone: NonNullable<ToNodeOptions['onDone']>
  private readonly request: ProxyRequest | undefined
  private readonly status: number
  private readonly cause: ProxyError | undefined

  constructor(onDone: NonNullable<ToNodeOptions['onDone']>, request: ProxyRequest | undefined, status: number, cause: ProxyError | undefined) {
    this.onDone = onDone
    this.request = request
    this.status = status
    this.cause = cause
  }

  sent(outcome: SendOutcome, error?: ProxyError): void {
    this.onDone(this.request, this.status, outcome, error ?? this.cause)
  }
}
