import { expect, test } from 'vitest'
import { compose, createHeaders, createRequest, type Handler, type Middleware } from '../src/index.ts'

const layer =
  (name: string, log: string[]): Middleware =>
  (next) =>
  (request) => {
    log.push(name)
    return next(request)
  }
const end =
  (log: string[]): Handler =>
  async () => {
    log.push('end')
    return { status: 200, headers: createHeaders(), body: null }
  }

test('joins layers, outermost first, and composes with itself', async () => {
  const log: string[] = []
  await compose(layer('a', log), compose(layer('b', log), layer('c', log)))(end(log))(createRequest())
  expect(log).toEqual(['a', 'b', 'c', 'end'])
})

test('of nothing is the handler itself', () => {
  const handler = end([])
  expect(compose()(handler)).toBe(handler)
})

test('lets a layer call what is inside never, or often', async () => {
  const log: string[] = []
  const thrice: Middleware = (next) => async (request) => {
    await next(request)
    await next(request)
    return next(request)
  }
  const never: Middleware = () => async () => ({ status: 204, headers: createHeaders(), body: null })
  await compose(thrice, layer('a', log))(end(log))(createRequest())
  expect(log).toEqual(['a', 'end', 'a', 'end', 'a', 'end'])
  expect((await compose(never, layer('b', log))(end(log))(createRequest())).status).toBe(204)
  expect(log).not.toContain('b')
})
