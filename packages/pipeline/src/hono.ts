import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Context as HonoContext } from 'hono'
import { isClosed, onClosed } from './connection.ts'
import { toFetch } from './fetch.ts'
import { type ToNodeOptions, toNode } from './node.ts'
import type { Handler } from './types.ts'

/** What @hono/node-server understands as "the answer is already on the socket" (its own `RESPONSE_ALREADY_SENT` is the same Response). */
const ALREADY_SENT = 'x-hono-already-sent'

/**
 * A handler as a Hono handler: `app.all('/images/*', toHono(proxy))`. On @hono/node-server the answer is written to Node's response directly,
 * and everything is as with `toNode`; on other hosts it goes through web Request and Response as with `toFetch`, and of the options only `proxyName` counts.
 *
 * Middleware that changes the response after `next()` has no effect on what was written directly: put such layers into the pipeline.
 */
export function toHono(handler: Handler, options: ToNodeOptions = {}): (context: HonoContext) => Promise<Response> {
  const node = toNode(handler, options)
  const web = toFetch(handler, options.proxyName === undefined ? {} : { proxyName: options.proxyName })
  return async (context) => {
    const { incoming, outgoing } = (context.env ?? {}) as { incoming?: IncomingMessage; outgoing?: ServerResponse }
    if (incoming === undefined || outgoing === undefined) return web(context.req.raw)
    // Resolved when the exchange is over, so that Hono middleware which measures or logs sees its real end.
    const closed = isClosed(outgoing) ? undefined : new Promise<void>((resolve) => onClosed(outgoing, resolve))
    node(incoming, outgoing)
    await closed
    return alreadySent(outgoing.statusCode)
  }
}

function alreadySent(sentStatus: number): Response {
  // A web Response has no others.
  const status = sentStatus >= 200 && sentStatus <= 599 ? sentStatus : 200
  const answered = new Response(null, { status, headers: { [ALREADY_SENT]: 'true' } })
  // node-server's own Response class remembers its arguments and would be written a second time, also in the copy that Hono makes of it for HEAD;
  // reading `body` once makes it an ordinary one.
  void answered.body
  return answered
}
