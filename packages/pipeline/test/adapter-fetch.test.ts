import { getRequestListener } from '@hono/node-server'
import { toFetch } from '../src/fetch.ts'
import { adapterSuite } from './adapter-suite.ts'
import { serve } from './hosts.ts'

adapterSuite({
  name: 'toFetch on @hono/node-server',
  start: (handler) => serve(getRequestListener(toFetch(handler))),
  cannot: { 'response trailers': 'a web Response has none' }
})
