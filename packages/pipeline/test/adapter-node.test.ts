import { toNode } from '../src/node.ts'
import { adapterSuite } from './adapter-suite.ts'
import { serve } from './hosts.ts'

adapterSuite({ name: 'toNode in node:http', start: (handler) => serve(toNode(handler)) })
