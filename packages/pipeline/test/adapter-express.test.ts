import express from 'express'
import { toNode } from '../src/node.ts'
import { adapterSuite } from './adapter-suite.ts'
import { serve } from './hosts.ts'

adapterSuite({
  name: 'toNode in Express',
  start(handler) {
    const app = express()
    app.use(toNode(handler))
    return serve(app)
  }
})
