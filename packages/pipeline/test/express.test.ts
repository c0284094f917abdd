import express from 'express'
import { expect, test } from 'vitest'
import { readAll, WholeBody } from '../src/index.ts'
import { toNode } from '../src/node.ts'
import { fields } from './adapter-suite.ts'
import { ask } from './client.ts'
import { mirror, onServer } from './hosts.ts'

test('behind a mount path, the pipeline sees what is left of the target', async () => {
  const app = express()
  app.use('/img', toNode(mirror))
  app.use(toNode(mirror))
  await onServer(app, async (port) => {
    const targets: unknown[] = []
    for (const path of ['/img/a%2Fb?c', '/img', '/img?c', '/img/../x', '/other?c', '/IMG/a']) targets.push(JSON.parse((await ask(port, { path })).body.toString()).target)
    expect(targets).toEqual(['/a%2Fb?c', '/', '/?c', '/../x', '/other?c', '/a'])
  })
})

test('the whole target, where it is wanted, is that of a mount at the root', async () => {
  const app = express()
  const proxy = toNode(mirror)
  app.use((request, response, next) => (request.path.startsWith('/img/') ? proxy(request, response) : next()))
  await onServer(app, async (port) => {
    expect(JSON.parse((await ask(port, { path: '/img/a' })).body.toString()).target).toBe('/img/a')
    expect((await ask(port, { path: '/other' })).status).toBe(404)
  })
})

test('fields that Express has set stay, those of a failed answer do not', async () => {
  const app = express()
  app.use((_request, response, next) => {
    response.setHeader('x-express', '1')
    response.setHeader('content-length', '999')
    next()
  })
  app.use(
    toNode(async ({ target }) => ({
      status: 200,
      headers: fields({ 'set-cookie': ['a=1', 'b=2'], date: 'Thu, 01 Jan 1970 00:00:00 GMT', ...(target === '/bad' ? { 'x-bad': '\0' } : {}) }),
      body: new WholeBody('x')
    }))
  )
  await onServer(app, async (port) => {
    const good = await ask(port)
    expect([good.status, good.headers['x-express'], good.headers['set-cookie'], good.headers['content-length'], good.headers.date]).toEqual([
      200,
      '1',
      ['a=1', 'b=2'],
      '1',
      'Thu, 01 Jan 1970 00:00:00 GMT'
    ])
    const bad = await ask(port, { path: '/bad' })
    expect([bad.status, bad.message, bad.headers['x-express'], bad.headers['set-cookie'], bad.body.toString()]).toEqual([502, 'Bad Gateway', '1', undefined, 'Bad Gateway\n'])
    expect(bad.headers.date).not.toBe('Thu, 01 Jan 1970 00:00:00 GMT')
    expect(bad.headers.date).toBeDefined()
  })
})

test('a body that a parser has read is missed, not taken for empty', async () => {
  const app = express()
  app.use(express.json())
  app.use(toNode(async (request) => ({ status: 200, headers: fields(), body: await readAll(request.body, 100) })))
  await onServer(app, async (port) => {
    expect((await ask(port, { method: 'POST', body: '{"a":1}', headers: { 'content-type': 'application/json' } })).status).toBe(500)
    expect((await ask(port, { method: 'POST', body: 'text', headers: { 'content-type': 'text/plain' } })).body.toString()).toBe('text')
  })
})
