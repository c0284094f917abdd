import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { cut, isClosed, isHttp2, isQueued } from './connection.ts'
import { checkProxyName, errorResponse, type ProxyError, toProxyError } from './errors.ts'
import { TrustedProxies } from './forwarding.ts'
import { NodeRequest } from './node-request.ts'
import { type SendObserver, type SendOutcome, sendResponse } from './node-response.ts'
import type { Handler, ProxyRequest, ProxyResponse } from './types.ts'

export type { SendOutcome } from './node-response.ts'

export interface ToNodeOptions {
  /** Peers that may speak for their clients by X-Forwarded-For and -Proto: addresses or CIDR blocks. Default: none. */
  readonly trustedProxies?: readonly string[]
  /** Name of this proxy in Proxy-Status, a token. Default `proxy`. */
  readonly proxyName?: string
  /**
   * Told once per request, when its answer was handed to the socket or will never be. `request` is undefined when the message was refused before it became one.
   * `status` is what was sent, or would have been. What it throws becomes a process warning.
   */
  readonly onDone?: (request: ProxyRequest | undefined, status: number, outcome: SendOutcome, error: ProxyError | undefined) => void
}

/**
 * A handler as a listener of node:http, for `http.createServer`, Express (`app.use`) and, after `reply.hijack()`, Fastify.
 * Answers every request itself, failures too, and never throws. Throws TypeError at once for options that make no sense.
 */
export function toNode(handler: Handler, options: ToNodeOptions = {}): (incoming: IncomingMessage, outgoing: ServerResponse) => void {
  const trusted = new TrustedProxies(options.trustedProxies)
  checkProxyName(options.proxyName)
  const { onDone } = options

  const deliver = (response: ProxyResponse, outgoing: ServerResponse, request: NodeRequest | undefined, cause: ProxyError | undefined): void => {
    sendResponse(response, outgoing, outgoing.req.method as string, onDone === undefined ? undefined : new DoneObserver(onDone, request, response.status, cause))
  }

  const giveUp = (failure: ProxyError, outgoing: ServerResponse, request: NodeRequest | undefined): void => {
    const gone = isClosed(outgoing)
    cut(outgoing, failure)
    if (onDone !== undefined) report(onDone, request, outgoing.headersSent ? outgoing.statusCode : failure.status, gone ? 'aborted' : 'failed', failure)
  }

  const fail = (error: unknown, outgoing: ServerResponse, request: NodeRequest | undefined): void => {
    const failure = toProxyError(error)
    if (outgoing.headersSent || isClosed(outgoing)) {
      giveUp(failure, outgoing, request)
      return
    }
    const response = errorResponse(failure, options)
    // A message that was refused as malformed may be followed by bytes that mean something else to us than to its sender.
    if (request === undefined && !isHttp2(outgoing)) {
      response.headers.connection = 'close'
      refused.add(outgoing.req.socket)
    }
    // Node does not forget that a head which it then refused was to have no body.
    if (outgoing.statusCode === 204 || outgoing.statusCode === 304) response.body = null
    try {
      deliver(response, outgoing, request, failure)
    } catch (second) {
      giveUp(toProxyError(second), outgoing, request)
    }
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
    // Pipelined behind a refused message: node:http has read on, and nobody can say what this is.
    if (isQueued(outgoing) && refused.has(incoming.socket)) {
      if (onDone !== undefined) report(onDone, undefined, 400, 'aborted', undefined)
      return
    }
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

/** Connections that end with an answer to a malformed message. */
const refused = new WeakSet<Socket>()

type OnDone = NonNullable<ToNodeOptions['onDone']>

class DoneObserver implements SendObserver {
  private readonly onDone: OnDone
  private readonly request: ProxyRequest | undefined
  private readonly status: number
  private readonly cause: ProxyError | undefined

  constructor(onDone: OnDone, request: ProxyRequest | undefined, status: number, cause: ProxyError | undefined) {
    this.onDone = onDone
    this.request = request
    this.status = status
    this.cause = cause
  }

  sent(outcome: SendOutcome, error?: ProxyError): void {
    report(this.onDone, this.request, this.status, outcome, error ?? this.cause)
  }
}

/** A log that fails is no reason to lose the answer, or the process. */
function report(onDone: OnDone, request: ProxyRequest | undefined, status: number, outcome: SendOutcome, error: ProxyError | undefined): void {
  try {
    onDone(request, status, outcome, error)
  } catch (thrown) {
    process.emitWarning(thrown instanceof Error ? thrown : new Error(String(thrown)))
  }
}
