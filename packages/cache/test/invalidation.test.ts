import type { ServerResponse } from 'node:http'
import { afterEach, describe, expect, test } from 'vitest'
import { type Bench, startBench, until } from './support.ts'

let bench: Bench
afterEach(() => bench.close())

async function get(path = '/a', fields: Record<string, string> = {}): Promise<[string, string]> {
  const answer = await bench.get(path, fields)
  await bench.middleware.drain()
  return [answer.body.toString(), answer.cacheStatus.replace(/; ttl=\d+/, '')]
}

/** An origin that holds back the end of its first version; a POST makes the second. */
async function startHeld(): Promise<{ held: ServerResponse | undefined }> {
  const origin: { held: ServerResponse | undefined } = { held: undefined }
  let version = 1
  bench = await startBench((request, response) => {
    if (request.method === 'POST') {
      version = 2
      response.end()
    } else {
      response.writeHead(200, { 'cache-control': 'max-age=60' })
      response.write(`version ${version}`)
      if (version === 1) origin.held = response
      else response.end()
    }
  })
  return origin
}

describe('a request that changes something', () => {
  test.each([
    ['POST', 200, true],
    ['PUT', 204, true],
    ['DELETE', 200, true],
    ['PATCH', 303, true],
    // Of an unknown method nobody knows that it is safe.
    ['MKACTIVITY', 200, true],
    ['POST', 400, false],
    ['PUT', 500, false],
    ['OPTIONS', 200, false],
    ['SEARCH', 200, false]
  ])('%s answered %d: forgets what is stored: %s', async (method, status, forgets) => {
    let version = 1
    bench = await startBench((request, response) => {
      if (request.method === 'GET') response.writeHead(200, { 'cache-control': 'max-age=60', vary: 'accept' }).end(`version ${version}`)
      else response.writeHead(status, { location: '/elsewhere', 'cache-control': 'max-age=60' }).end()
    })
    await get()
    await get('/a', { accept: 'x' })
    await get('/b')
    version = 2
    expect((await bench.ask('/a', { method })).cacheStatus).toBe('proxy; fwd=method')
    expect(await get()).toEqual(forgets ? ['version 2', 'proxy; fwd=uri-miss; stored'] : ['version 1', 'proxy; hit'])
    expect((await get('/a', { accept: 'x' }))[0]).toBe(forgets ? 'version 2' : 'version 1')
    expect(await get('/b')).toEqual(['version 1', 'proxy; hit'])
  })

  test.each([
    ['location', '/b', true],
    ['location', 'b', true],
    ['content-location', 'http://example.org/b', true],
    ['location', 'http://example.org:80/x/../b', true],
    // Another origin has no say about what is stored here (RFC 9111 section 4.4).
    ['location', 'http://other.example/b', false],
    ['content-location', 'https://example.org/b', false],
    ['location', 'http://[broken', false]
  ])('forgets what its %s names: %s: %s', async (field, reference, forgets) => {
    bench = await startBench((request, response) => {
      if (request.method === 'GET') response.writeHead(200, { 'cache-control': 'max-age=60' }).end('text')
      else response.writeHead(201, { [field]: reference }).end()
    })
    await get('/b')
    await bench.ask('/a', { method: 'POST' })
    expect((await get('/b'))[1]).toBe(forgets ? 'proxy; fwd=uri-miss; stored' : 'proxy; hit')
  })

  test('is answered although the store cannot forget', async () => {
    bench = await startBench((_, response) => response.end('done'))
    const broken = new Error('down')
    bench.store.breakDelete = () => broken
    expect((await bench.ask('/a', { method: 'POST', body: 'x' })).body.toString()).toBe('done')
    expect(bench.storeErrors).toEqual([broken])
  })

  // What had been asked for before the change was stored after it, and served for as long as it was fresh.
  test('also forgets what is on its way: nobody new gets it, and it is not kept', async () => {
    const origin = await startHeld()
    const before = bench.get('/a')
    await until(() => origin.held !== undefined)
    await bench.ask('/a', { method: 'POST' })
    const after = bench.get('/a')
    await until(() => bench.origin.requests.length === 3)
    expect((await after).body.toString()).toBe('version 2')
    origin.held?.end()
    expect((await before).body.toString()).toBe('version 1')
    await bench.middleware.drain()
    expect((await get())[0]).toBe('version 2')
  })

  // Between its commit and its removal it could be found.
  test('what is on its way is not found while it is being removed', async () => {
    const origin = await startHeld()
    const before = bench.get('/a')
    await until(() => origin.held !== undefined)
    await bench.ask('/a', { method: 'POST' })
    const removal = Promise.withResolvers<void>()
    const { inner } = bench.store
    const remove = inner.delete.bind(inner)
    let removing = false
    inner.delete = async (key) => {
      removing = true
      await removal.promise
      return remove(key)
    }
    origin.held?.end()
    await before
    await until(() => removing)
    expect(await inner.get('default|http://example.org/a')).toBeDefined()
    expect((await bench.get('/a')).body.toString()).toBe('version 2')
    removal.resolve()
    await bench.middleware.drain()
    expect((await get())[0]).toBe('version 2')
  })

  // The index that leads to the variants was written once more, and with it those came back that had been forgotten.
  test('an index that is written late brings no variants back', async () => {
    let version = 1
    bench = await startBench((request, response) => {
      if (request.method === 'POST') version = 2
      if (request.method === 'POST') response.end()
      else response.writeHead(200, { 'cache-control': request.headers.accept === 'b' ? 'max-age=200000' : 'max-age=60', vary: 'accept' }).end(`version ${version}`)
    })
    await get('/a', { accept: 'a' })
    const late = Promise.withResolvers<void>()
    let waits = false
    bench.store.onPut = (writer, _, meta) =>
      meta.vary === undefined
        ? writer
        : {
            write: (chunk) => writer.write(chunk),
            drained: () => writer.drained(),
            abort: () => writer.abort(),
            commit: async () => {
              waits = true
              await late.promise
              return writer.commit()
            }
          }
    await bench.get('/a', { accept: 'b' })
    await until(() => waits)
    bench.store.onPut = undefined
    await bench.ask('/a', { method: 'POST' })
    late.resolve()
    expect((await bench.get('/a', { accept: 'a' })).body.toString()).toBe('version 2')
    await bench.middleware.drain()
    expect((await get('/a', { accept: 'a' }))[0]).toBe('version 2')
  })

  // Who had found the index before the change, and the origin after it, wrote the old index back.
  test('an index that was found before the change is not used after it', async () => {
    let version = 1
    bench = await startBench((request, response) => {
      if (request.method === 'POST') version = 2
      if (request.method === 'POST') response.end()
      else response.writeHead(200, { 'cache-control': request.headers.accept === 'b' ? 'max-age=200000' : 'max-age=60', vary: 'accept' }).end(`version ${version}`)
    })
    await get('/a', { accept: 'a' })
    const slow = Promise.withResolvers<void>()
    const { inner } = bench.store
    const find = inner.get.bind(inner)
    let waits = false
    inner.get = async (key, want) => {
      if (key.endsWith('=b')) {
        waits = true
        await slow.promise
      }
      return find(key, want)
    }
    const between = bench.get('/a', { accept: 'b' })
    await until(() => waits)
    await bench.ask('/a', { method: 'POST' })
    slow.resolve()
    expect((await between).body.toString()).toBe('version 2')
    await bench.middleware.drain()
    expect((await get('/a', { accept: 'a' }))[0]).toBe('version 2')
  })

  // The same for who had found it while it was being removed.
  test('an index that was found while it was being removed is not used after that', async () => {
    let version = 1
    bench = await startBench((request, response) => {
      if (request.method === 'POST') version = 2
      if (request.method === 'POST') response.end()
      else response.writeHead(200, { 'cache-control': request.headers.accept === 'b' ? 'max-age=200000' : 'max-age=60', vary: 'accept' }).end(`version ${version}`)
    })
    await get('/a', { accept: 'a' })
    const [removal, slow] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const { inner } = bench.store
    const [find, remove] = [inner.get.bind(inner), inner.delete.bind(inner)]
    const waits = { removal: false, lookup: false }
    inner.delete = async (key) => {
      waits.removal = true
      await removal.promise
      return remove(key)
    }
    inner.get = async (key, want) => {
      if (key.endsWith('=b')) {
        waits.lookup = true
        await slow.promise
      }
      return find(key, want)
    }
    const change = bench.ask('/a', { method: 'POST' })
    await until(() => waits.removal)
    const between = bench.get('/a', { accept: 'b' })
    await until(() => waits.lookup)
    removal.resolve()
    await change
    slow.resolve()
    expect((await between).body.toString()).toBe('version 2')
    await bench.middleware.drain()
    expect((await get('/a', { accept: 'a' }))[0]).toBe('version 2')
  })
})
