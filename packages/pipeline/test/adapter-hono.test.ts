import { getRequestListener } from '@hono/node-server'
import { Hono } from 'hono'
import { toHono } from '../src/hono.ts'
import { adapterSuite } from './adapter-suite.ts'
import { serve } from './hosts.ts'

adapterSuite({ name: 'toHono on @hono/node-server', start: (handler) => serve(getRequestListener(new Hono().all('*', toHono(handler)).fetch)) })
