import { createRequest, type ProxyRequest, WholeBody } from '@proxy/pipeline'
import { describe, expect, test } from 'vitest'
import { type Route, routeRequests } from '../src/routes.ts'
import { decodedPath } from '../src/target-path.ts'

function route(name: string, path: string, host?: string): Route {
  return { host, path, handler: () => Promise.resolve({ status: 200, headers: {}, body: new WholeBody(name) }) }
}

async function ask(routes: readonly Route[], target: string, authority = 'localhost:8080'): Promise<string | number> {
  const request: ProxyRequest = createRequest({ target, authority })
  const response = await routeRequests(routes, '/_proxy')(request)
  return response.status === 200 ? ((response.body as WholeBody).latin1 as string) : response.status
}

describe('paths', () => {
  const routes = [route('all', '/'), route('api', '/api'), route('admin', '/api/admin'), route('images', '/images/')]

  test.each([
    ['/', 'all'],
    ['/x', 'all'],
    ['/?a=/api', 'all'],
    ['/api', 'api'],
    ['/api?x', 'api'],
    ['/api/', 'api'],
    ['/api/x', 'api'],
    ['/apis', 'all'],
    ['/api/admin/x', 'admin'],
    ['/api/administrators', 'api'],
    ['/images/a%20b.png', 'images'],
    ['/images/a.b/c..d/x;y=1', 'images'],
    ['/images', 'all']
  ])('%s goes to %s', async (target, name) => expect(await ask(routes, target)).toBe(name))

  test.each(['/%61pi/x', '/api/%61dmin', '/x/../api', '/x/%2e%2e/api', '/x/..%2fapi', '//api/admin', '/api//admin', '/api/./admin', '/api/x;y/../admin', '/api;x/y', '/%2561pi', '/x%5c..%5capi'])(
    '%s, which leads to another route once decoded, is refused',
    async (target) => expect(await ask(routes, target)).toBe(400)
  )

  test('without a route for everything, the rest is 404', async () => {
    expect(await ask([route('api', '/api')], '/other')).toBe(404)
  })

  test('OPTIONS * is about the server, not about a route', async () => {
    expect(await ask([route('all', '/')], '*')).toBe(204)
  })
})

test('the reserved prefix leads nowhere, on no host', async () => {
  const routes = [route('all', '/'), route('example', '/', 'example.org')]
  for (const host of ['example.org', 'localhost']) {
    expect(await ask(routes, '/_proxy/metrics', host)).toBe(404)
    expect(await ask(routes, '/_proxy', host)).toBe(404)
    expect(await ask(routes, '/x/..%2f_proxy/metrics', host)).toBe(400)
  }
  expect(await ask(routes, '/_proxyx')).toBe('all')
})

describe('hosts', () => {
  const routes = [
    route('any', '/'),
    route('any-x', '/x'),
    route('example', '/', 'example.org'),
    route('wild', '/', '*.example.org'),
    route('deep', '/', '*.deep.example.org'),
    route('only-y', '/y', 'y.org'),
    route('v6', '/', '[::1]')
  ]

  test.each([
    ['example.org', '/', 'example'],
    ['example.org:8080', '/x', 'example'],
    ['example.org.', '/', 'example'],
    ['a.example.org', '/', 'wild'],
    ['a.b.example.org', '/', 'wild'],
    ['a.deep.example.org', '/', 'deep'],
    ['notexample.org', '/', 'any'],
    ['y.org', '/y/z', 'only-y'],
    ['y.org', '/x', 'any-x'],
    ['[::1]:80', '/', 'v6'],
    ['', '/', 'any']
  ])('%s%s goes to %s', async (authority, target, name) => expect(await ask(routes, target, authority)).toBe(name))
})

describe('decodedPath', () => {
  test.each([
    ['/a/b', '/a/b'],
    ['/a/b/', '/a/b/'],
    ['/%41/', '/A/'],
    ['/a/..', '/'],
    ['/../../a', '/a'],
    ['/a//b', '/a/b'],
    ['/a;x=1/b;y', '/a/b'],
    ['/a/.', '/a/'],
    ['/%', '/%'],
    ['/%zz', '/%zz']
  ])('%s is read as %s', (path, expected) => expect(decodedPath(path)).toBe(expected))

  test('takes linear time', () => {
    const startedMs = performance.now()
    decodedPath(`/${'%25'.repeat(20_000)}${'/../'.repeat(20_000)}`)
    expect(performance.now() - startedMs).toBeLessThan(1000)
  })
})
