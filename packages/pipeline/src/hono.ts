import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Context as HonoContext } from 'hono'
import { serveWeb } from './fetch.ts'
import { plainAddress } from './forwarding.ts'
import { type ToNodeOptions, toNode } from './node.ts'
import type { Handler } from './types.ts'

/** What @hono/node-server understands as "the answer is already on the socket" (its own `RESPONSE_ALREADY_SENT` is the same Response). */
const ALREADY_SENT = 'x-hono-already-sent'

/**
 * A handler as a Hono handler: `app.all('/images/*', toHono(proxy))`. On @hono/node-server the answer is written to Node's response directly;
 * on other hosts, and for HEAD (which Hono answers by rebuilding the GET response), it goes through web Request and Response.
 *
 * Middleware that changes the response after `next()` has no effect on what was written directly: put such layers into the pipeline.
 */
export function toHono(handler: Handler, options: ToNodeOptions = {}): (context: HonoContext) => Promise<Response> {
  const node = toNode(handler, options)
  const web = (request: Request, remoteAddress: string) => serveWeb(handler, request, options, remoteAddress)
  return async (context) => {
    const { incoming, outgoing } = (context.env ?? {}) as { incoming?: IncomingMessage; outgoing?: ServerResponse }
    if (incoming === undefined || outgoing === undefined) return web(context.req.raw, '')
    if (incoming.method === 'HEAD') return web(context.req.raw, plainAddress(incoming.socket.remoteAddress))
    // Resolved when the exchange is over, so that Hono middleware which measures or logs sees its real end.
    const closed = new Promise((resolve) => outgoing.once('close', resolve))
    node(incoming, outgoing)
    await closed
    const answered = new Response(null, { status: outgoing.statusCode >= 200 ? outgoing.statusCode : 200, headers: { [ALREADY_SENT]: 'true' } })
    // node-server's own Response class remembers its arguments and would be written a second time; reading `body` once makes it an ordinary one.
    void answered.body
    return answered
  }
}
