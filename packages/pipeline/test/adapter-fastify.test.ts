import Fastify from 'fastify'
import { toNode } from '../src/node.ts'
import { adapterSuite } from './adapter-suite.ts'
import { listen } from './hosts.ts'

adapterSuite({
  name: 'toNode in Fastify',
  async start(handler) {
    const app = Fastify()
    const node = toNode(handler)
    // Fastify reads bodies before its handlers run; these are to stay streams.
    app.removeAllContentTypeParsers()
    app.addContentTypeParser('*', (_request, _payload, done) => done(null))
    app.all('/*', (request, reply) => {
      reply.hijack()
      node(request.raw, reply.raw)
    })
    await app.ready()
    return listen(app.server)
  }
})
