import { createHash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { afterEach, describe, expect, test } from 'vitest'
import type { CacheOptions } from '../src/index.ts'
import { type Bench, type ClientAnswer, openAnswer, startBench, until } from './support.ts'

let bench: Bench | undefined
afterEach(async () => {
  await bench?.close()
  bench = undefined
})

const bytes = Buffer.concat(Array.from({ length: 10_000 }, (_, i) => createHash('sha256').update(String(i)).digest()))
const total = bytes.length

type Answer = (incoming: IncomingMessage, outgoing: ServerResponse) => void

interface OriginOptions {
  readonly etag?: string | undefined
  readonly cacheControl?: string
  readonly fields?: Record<string, string>
}

/** An origin with ranges, as a file server has them. */
function fileServer({ etag = '"v1"', cacheControl = 'max-age=60', fields = {} }: OriginOptions = {}): Answer {
  return (incoming, outgoing) => {
    const common = { 'content-type': 'video/mp4', 'cache-control': cacheControl, ...(etag !== '' && { etag }), ...fields }
    if (etag !== '' && incoming.headers['if-none-match'] === etag) {
      outgoing.writeHead(304, common).end()
      return
    }
    const match = /^bytes=(\d*)-(\d*)$/.exec(incoming.headers.range ?? '')
    const ifRange = incoming.headers['if-range']
    if (match === null || (ifRange !== undefined && ifRange !== etag)) {
      outgoing.writeHead(200, { ...common, 'content-length': String(total) }).end(bytes)
      return
    }
    const start = match[1] === '' ? total - Number(match[2]) : Number(match[1])
    const end = match[1] === '' || match[2] === '' ? total - 1 : Math.min(Number(match[2]), total - 1)
    if (start >= total) {
      outgoing.writeHead(416, { ...common, 'content-range': `bytes */${total}` }).end()
      return
    }
    outgoing.writeHead(206, { ...common, 'content-range': `bytes ${start}-${end}/${total}`, 'content-length': String(end - start + 1) }).end(bytes.subarray(start, end + 1))
  }
}

async function start(answer: Answer = fileServer(), options: Partial<CacheOptions> = {}): Promise<Bench> {
  bench = await startBench(answer, options)
  return bench
}

async function range(spec: string, fields: Record<string, string> = {}): Promise<ClientAnswer> {
  const answer = await (bench as Bench).get('/v', { range: `bytes=${spec}`, ...fields })
  await (bench as Bench).middleware.drain()
  return answer
}

const rangesAsked = (): (string | undefined)[] => (bench as Bench).origin.requests.map(({ rawHeaders }) => rawHeaders[rawHeaders.findIndex((name) => name.toLowerCase() === 'range') + 1])

describe('a part', () => {
  test('that is stored is used for what lies in it', async () => {
    const { origin } = await start()
    expect((await range('1000-4999')).cacheStatus).toBe('proxy; fwd=uri-miss; stored; ttl=60; detail=part')
    for (const [spec, first, last] of [
      ['1000-4999', 1000, 4999],
      ['2000-2000', 2000, 2000],
      ['3000-4999', 3000, 4999]
    ] as const) {
      const answer = await range(spec)
      expect([answer.status, answer.cacheStatus, answer.headers['content-range'], answer.headers['content-length']]).toEqual([
        206,
        'proxy; hit; ttl=60',
        `bytes ${first}-${last}/${total}`,
        String(last - first + 1)
      ])
      expect(answer.body.equals(bytes.subarray(first, last + 1))).toBe(true)
    }
    expect(origin.requests.length).toBe(1)
  })

  test.each(['0-999', '999-1000', '4999-5000', '1000-', '-10'])('of which %s is not wholly stored is asked for', async (spec) => {
    const { origin } = await start()
    await range('1000-4999')
    expect((await range(spec)).status).toBe(206)
    expect(origin.requests.length).toBe(2)
  })

  test('at the end of the whole answers for its suffixes', async () => {
    const { origin } = await start()
    await range('-1000')
    const answer = await range('-10')
    expect([answer.cacheStatus, answer.body.equals(bytes.subarray(-10))]).toEqual(['proxy; hit; ttl=60', true])
    await range(`${total - 5}-`)
    expect(origin.requests.length).toBe(1)
  })

  test('is never the whole', async () => {
    await start(fileServer({ etag: '"v1"' }))
    await range('1000-4999')
    const whole = await (bench as Bench).get('/v')
    expect([whole.status, whole.body.equals(bytes)]).toEqual([200, true])
    expect((await (bench as Bench).ask('/v', { method: 'HEAD' })).headers['content-length']).toBe(String(total))
  })

  test('goes stale, and is asked for again', async () => {
    const { clock, origin } = await start()
    await range('0-99')
    clock.advance(60_000)
    await range('0-99')
    expect(origin.requests.length).toBe(2)
    await range('0-99')
    expect(origin.requests.length).toBe(2)
  })

  test('is forgotten with its target, by an unsafe request and by a purge', async () => {
    const { ask, clock, middleware, origin } = await start()
    await range('0-99')
    await ask('/v', { method: 'DELETE' })
    expect((await range('0-99')).cacheStatus).toContain('fwd=uri-miss')
    clock.advance(1)
    expect(await middleware.purge({ url: 'http://example.org/v' })).toEqual({ touched: 1 })
    clock.advance(1)
    expect((await range('0-99')).cacheStatus).toContain('fwd=uri-miss')
    expect(origin.requests.length).toBe(4)
  })

  // It was looked at for its age alone.
  test('that was softly purged is asked for again', async () => {
    const { clock, middleware, origin } = await start()
    await range('0-99')
    clock.advance(1)
    await middleware.purge({ url: 'http://example.org/v', soft: true })
    clock.advance(1)
    await range('0-99')
    expect(origin.requests.length).toBe(2)
  })

  test.each<[string, OriginOptions]>([
    ['without a strong validator', { etag: '' }],
    ['with a weak one', { etag: 'W/"v1"' }],
    ['that is private', { cacheControl: 'private, max-age=60' }],
    ['that says no-store', { cacheControl: 'no-store' }],
    ['with a cookie', { fields: { 'set-cookie': 'a=1' } }],
    ['of a varying response of which nothing is known', { fields: { vary: 'accept' } }]
  ])('%s is not stored', async (_, options) => {
    const { origin, store } = await start(fileServer(options))
    await range('0-99')
    await range('0-99')
    expect(origin.requests.length).toBe(2)
    expect(await store.inner.get('default|http://example.org/v\n~part')).toBeUndefined()
  })

  test.each([
    ['bytes 0-9/100', '012345678'],
    ['bytes 0-9/*', '0123456789'],
    ['bytes 0-9', '0123456789'],
    ['bytes 9-0/100', '0123456789'],
    ['bytes 90-100/100', '01234567890']
  ])('whose Content-Range is %j, with %j, is passed on and not stored', async (contentRange, body) => {
    const { origin } = await start((_, outgoing) =>
      outgoing.writeHead(206, { etag: '"a"', 'cache-control': 'max-age=60', 'content-range': contentRange, 'content-length': String(body.length) }).end(body)
    )
    expect((await range('0-9')).body.toString()).toBe(body)
    await range('0-9')
    expect(origin.requests.length).toBe(2)
  })

  test('that a client must not have stored is not', async () => {
    const { origin } = await start()
    await range('0-99', { 'cache-control': 'no-store' })
    await range('0-99')
    expect(origin.requests.length).toBe(2)
  })

  test("is not used by a client with conditions of its own: they are the origin's to judge", async () => {
    const { origin } = await start()
    await range('0-99')
    await range('0-99', { 'if-none-match': '"other"' })
    await range('0-99', { 'if-match': '"v1"' })
    expect(origin.requests.length).toBe(3)
  })

  test('is forgotten by a purge also where the store cannot be walked through', async () => {
    const { clock, middleware, origin, store } = await start()
    store.sweep = () => Promise.resolve(0)
    await range('0-99')
    clock.advance(1)
    await middleware.purge({ all: true })
    clock.advance(1)
    await range('0-99')
    expect(origin.requests.length).toBe(2)
  })

  test('of which the target changes while it comes is not used, also before it could be removed', async () => {
    let more: (() => void) | undefined
    const { ask, get, middleware, origin, store } = await start((incoming, outgoing) => {
      if (incoming.method === 'POST') outgoing.writeHead(204).end()
      else if (more !== undefined) fileServer()(incoming, outgoing)
      else {
        outgoing.writeHead(206, { 'cache-control': 'max-age=60', etag: '"v1"', 'content-range': `bytes 0-99/${total}`, 'content-length': '100' })
        outgoing.write(bytes.subarray(0, 50))
        more = () => outgoing.end(bytes.subarray(50, 100))
      }
    })
    const first = get('/v', { range: 'bytes=0-99' })
    await until(() => more !== undefined)
    await ask('/v', { method: 'POST' })
    ;(more as unknown as () => void)()
    await first
    await middleware.drain()
    expect(await store.inner.get('default|http://example.org/v\n~part')).toBeUndefined()
    expect((await range('0-99')).cacheStatus).toContain('fwd=uri-miss')
    expect(origin.requests.length).toBe(3)
  })

  test('is not used by a client that asks for another representation, or for a younger one', async () => {
    const { clock, origin } = await start()
    await range('0-99')
    clock.advance(2000)
    expect((await range('0-99', { 'if-range': '"v1"' })).cacheStatus).toContain('hit')
    await range('0-99', { 'cache-control': 'max-age=1' })
    expect(origin.requests.length).toBe(2)
    // It gets the whole, which is stored.
    const whole = await range('0-99', { 'if-range': '"v0"' })
    expect([whole.status, whole.body.length, origin.requests.length]).toEqual([200, total, 3])
  })
})

describe('completing', () => {
  test('only what is missing is fetched, and the whole is stored', async () => {
    const { get, middleware, origin } = await start()
    await range('0-99999')
    const whole = await get('/v')
    await middleware.drain()
    expect([whole.status, whole.headers['content-length'], whole.headers['content-range'], whole.body.equals(bytes)]).toEqual([200, String(total), undefined, true])
    expect(rangesAsked()).toEqual(['bytes=0-99999', 'bytes=100000-'])
    expect(origin.requests[1]?.rawHeaders.join().toLowerCase()).toContain('if-range,"v1"')
    const hit = await get('/v')
    expect([hit.cacheStatus, hit.body.equals(bytes)]).toEqual(['proxy; hit; ttl=60', true])
    expect((await range('5-9')).cacheStatus).toContain('hit')
    expect(origin.requests.length).toBe(2)
  })

  test('a representation that has changed is fetched whole', async () => {
    let etag = '"v1"'
    const { get } = await start((incoming, outgoing) => fileServer({ etag })(incoming, outgoing))
    await range('0-99999')
    etag = '"v2"'
    const whole = await get('/v')
    expect([whole.status, whole.headers.etag, whole.body.equals(bytes)]).toEqual([200, '"v2"', true])
  })

  test.each<[string, Answer]>([
    ['of another representation', (_, outgoing) => outgoing.writeHead(206, { etag: '"v2"', 'content-range': `bytes 100-${total - 1}/${total}` }).end(bytes.subarray(100))],
    ['from elsewhere', (_, outgoing) => outgoing.writeHead(206, { etag: '"v1"', 'content-range': `bytes 101-${total - 1}/${total}` }).end(bytes.subarray(101))],
    ['of another length', (_, outgoing) => outgoing.writeHead(206, { etag: '"v1"', 'content-range': `bytes 100-${total}/${total + 1}` }).end(Buffer.concat([bytes.subarray(100), Buffer.from('x')]))],
    ['of a longer whole', (_, outgoing) => outgoing.writeHead(206, { etag: '"v1"', 'content-range': `bytes 100-${total - 1}/${total + 1}` }).end(bytes.subarray(100))],
    ['up to somewhere', (_, outgoing) => outgoing.writeHead(206, { etag: '"v1"', 'content-range': `bytes 100-199/${total}` }).end(bytes.subarray(100, 200))],
    ['that is none', (_, outgoing) => outgoing.writeHead(416, { 'content-range': `bytes */${total}` }).end()]
  ])('a rest %s is not put to it: the whole is asked for', async (_, rest) => {
    const { get, origin } = await start((incoming, outgoing) => (incoming.headers.range === 'bytes=100-' ? rest : fileServer())(incoming, outgoing))
    await range('0-99')
    const whole = await get('/v')
    expect([whole.status, whole.body.equals(bytes), origin.requests.length]).toEqual([200, true, 3])
  })

  test('a rest that breaks off cuts the client, and is not stored', async () => {
    const { get, middleware, port, store } = await start((incoming, outgoing) => {
      if (incoming.headers.range !== 'bytes=100-') return fileServer()(incoming, outgoing)
      outgoing.writeHead(206, { etag: '"v1"', 'cache-control': 'max-age=60', 'content-range': `bytes 100-${total - 1}/${total}`, 'content-length': String(total - 100) })
      outgoing.write(bytes.subarray(100, 5000), () => outgoing.destroy())
    })
    await range('0-99')
    const answer = await openAnswer(port, '/v')
    const failure = new Promise((resolve) => answer.on('error', resolve))
    answer.resume()
    expect(await failure).toMatchObject({ code: 'ECONNRESET' })
    await middleware.drain()
    expect(await store.inner.get('default|http://example.org/v')).toBeUndefined()
    await expect(get('/v')).rejects.toThrow()
  })

  test('a part that does not open is not used', async () => {
    const { get, store, storeErrors } = await start()
    await range('0-99999')
    store.breakOpen = () => {
      store.breakOpen = undefined
      return new Error('gone')
    }
    expect((await get('/v')).body.equals(bytes)).toBe(true)
    expect(rangesAsked().at(-1)).not.toContain('bytes=100000')
    expect(storeErrors.length).toBe(1)
  })

  test('a part from the middle completes nothing', async () => {
    const { get, origin } = await start()
    await range('100-199')
    expect((await get('/v')).body.equals(bytes)).toBe(true)
    expect(origin.requests[1]?.rawHeaders.join().toLowerCase()).not.toContain('range')
  })
})

// Players begin so: each of 50 made a request of its own, and wrote the whole.
test('all as one part is fetched once for all who ask for it', async () => {
  const waiting: (() => void)[] = []
  const { get, origin } = await start((incoming, outgoing) => waiting.push(() => fileServer()(incoming, outgoing)))
  const clients = Array.from({ length: 20 }, (_, i) => get('/v', i % 2 === 0 ? { range: 'bytes=0-' } : {}))
  await until(() => waiting.length === 1)
  waiting[0]?.()
  const answers = await Promise.all(clients)
  expect(answers.every(({ body }) => body.equals(bytes))).toBe(true)
  expect(answers.map(({ status, headers }) => [status, headers['content-range']])).toEqual(answers.map((_, i) => (i % 2 === 0 ? [206, `bytes 0-${total - 1}/${total}`] : [200, undefined])))
  expect([origin.requests.length, rangesAsked()[0]]).toEqual([1, expect.not.stringContaining('bytes')])
})

test('all as one part of another representation is the whole', async () => {
  const { get } = await start()
  const answer = await get('/v', { range: 'bytes=0-', 'if-range': '"v0"' })
  expect([answer.status, answer.headers['content-range']]).toEqual([200, undefined])
})

describe('an answer that is the whole', () => {
  test('though a part was asked for: it is stored as that', async () => {
    const { get, middleware, origin } = await start()
    const answer = await get('/v', { range: `bytes=0-${total - 1}` })
    await middleware.drain()
    expect([answer.status, answer.headers['content-range'], answer.cacheStatus]).toEqual([206, `bytes 0-${total - 1}/${total}`, 'proxy; fwd=uri-miss; stored; ttl=60'])
    const whole = await get('/v')
    expect([whole.status, whole.cacheStatus, whole.headers['content-range'], whole.body.equals(bytes)]).toEqual([200, 'proxy; hit; ttl=60', undefined, true])
    expect(origin.requests.length).toBe(1)
  })

  test('from an origin that knows no ranges', async () => {
    const { get, middleware, origin } = await start((_, outgoing) => outgoing.writeHead(200, { 'cache-control': 'max-age=60' }).end(bytes))
    const first = await get('/v', { range: 'bytes=5-9' })
    await middleware.drain()
    expect([first.status, first.body.equals(bytes)]).toEqual([200, true])
    const second = await get('/v', { range: 'bytes=5-9' })
    expect([second.status, second.body.equals(bytes.subarray(5, 10)), origin.requests.length]).toEqual([206, true, 1])
  })
})

describe('a stale response of which a part is asked for', () => {
  test('is confirmed, and gives the part', async () => {
    const { clock, get, middleware, origin } = await start()
    await get('/v')
    await middleware.drain()
    clock.advance(61_000)
    const answer = await range('5-9')
    expect([answer.status, answer.cacheStatus, answer.body.equals(bytes.subarray(5, 10))]).toEqual([206, 'proxy; fwd=stale; fwd-status=304; ttl=60', true])
    expect((await get('/v')).cacheStatus).toContain('hit')
    expect(origin.requests.length).toBe(2)
  })

  test('has changed: the client gets its part of the new one at once', async () => {
    let etag = '"v1"'
    const { clock, get, middleware } = await start((incoming, outgoing) => fileServer({ etag })(incoming, outgoing))
    await get('/v')
    await middleware.drain()
    clock.advance(61_000)
    etag = '"v2"'
    const answer = await range('5-9')
    expect([answer.status, answer.headers.etag, answer.body.equals(bytes.subarray(5, 10))]).toEqual([206, '"v2"', true])
  })

  // The proxy told a client who had no conditions of its own that nothing had changed.
  test('and an origin whose 304 speaks of something else: the client gets no 304', async () => {
    const { clock, get, middleware, origin } = await start((incoming, outgoing) => {
      if (incoming.headers['if-none-match'] === undefined) fileServer()(incoming, outgoing)
      else outgoing.writeHead(304, { etag: '"other"' }).end()
    })
    await get('/v')
    await middleware.drain()
    clock.advance(61_000)
    expect((await range('5-9')).status).toBe(206)
    expect(origin.requests.length).toBe(3)
  })

  test.each([503, undefined])('and an origin that fails (%s): the part of what is stale stands in where it may', async (status) => {
    let fails = false
    const { clock, get, middleware } = await start(
      (incoming, outgoing) => {
        if (!fails) fileServer()(incoming, outgoing)
        else if (status === undefined) incoming.socket.destroy()
        else outgoing.writeHead(status).end('no')
      },
      { stale: { ifErrorMs: 10_000, ifUnreachableMs: 10_000 } }
    )
    await get('/v')
    await middleware.drain()
    fails = true
    clock.advance(65_000)
    const answer = await range('5-9')
    expect([answer.status, answer.body.equals(bytes.subarray(5, 10)), answer.cacheStatus]).toEqual([206, true, expect.stringContaining('detail=stale-if-error')])
    clock.advance(10_000)
    expect((await range('5-9')).status).toBe(status ?? 502)
  })

  // It was confirmed, its bytes did not open, and the client was refused.
  test('whose bytes are gone is asked for anew', async () => {
    const { clock, get, middleware, store } = await start()
    await get('/v')
    await middleware.drain()
    clock.advance(61_000)
    store.breakOpen = () => new Error('gone')
    const answer = await range('5-9')
    store.breakOpen = undefined
    expect([answer.status, answer.body.equals(bytes.subarray(5, 10))]).toEqual([206, true])
  })
})

// The model found it: an answer that was asked for before a POST, and arrived after it, was stored as if it were new.
test('a part that was asked for before its target changed is not stored', async () => {
  const waiting: (() => void)[] = []
  const { ask, get, origin } = await start((incoming, outgoing) => {
    if (incoming.method === 'POST') outgoing.writeHead(204).end()
    else if (waiting.length === 0) waiting.push(() => fileServer()(incoming, outgoing))
    else fileServer()(incoming, outgoing)
  })
  for (const spec of ['0-99', '0-']) {
    waiting.length = 0
    const first = get('/v', { range: `bytes=${spec}` })
    await until(() => waiting.length === 1)
    await ask('/v', { method: 'POST' })
    waiting[0]?.()
    await first
    const before = origin.requests.length
    expect((await range('5-9')).cacheStatus).toContain('fwd=uri-miss')
    expect(origin.requests.length).toBe(before + 1)
    await ask('/v', { method: 'POST' })
  }
})

describe('rangeMiss: fill', () => {
  test('the client gets its part at once, and the whole is fetched for those who come later', async () => {
    const { get, middleware, origin } = await start(fileServer(), { rangeMiss: 'fill' })
    expect((await range('5-9')).status).toBe(206)
    await middleware.drain()
    expect(rangesAsked().filter((asked) => asked === 'bytes=5-9').length).toBe(1)
    expect(origin.requests.length).toBe(2)
    const hit = await get('/v')
    expect([hit.cacheStatus, hit.body.equals(bytes)]).toEqual(['proxy; hit; ttl=60', true])
  })

  test('the part does not wait for the whole, nor for earlier bytes', async () => {
    const held: ServerResponse[] = []
    const { port } = await start(
      (incoming, outgoing) => {
        if (incoming.headers.range === undefined) {
          held.push(outgoing)
          outgoing.writeHead(200, { 'cache-control': 'max-age=60', 'content-length': String(total) })
          outgoing.write(bytes.subarray(0, 10))
        } else fileServer()(incoming, outgoing)
      },
      { rangeMiss: 'fill' }
    )
    for (const spec of ['300000-300009', '100000-100009']) {
      const answer = await openAnswer(port, '/v', { headers: { range: `bytes=${spec}` } })
      const chunks: Buffer[] = []
      for await (const chunk of answer) chunks.push(chunk as Buffer)
      const [from, to] = spec.split('-').map(Number) as [number, number]
      expect(Buffer.concat(chunks).equals(bytes.subarray(from, to + 1))).toBe(true)
    }
    expect(held.length).toBe(1)
    held[0]?.end(bytes.subarray(10))
  })

  test('what is too large is tried once in a while', async () => {
    const { get, middleware, origin } = await start(fileServer(), { rangeMiss: 'fill', maxObjectBytes: total - 1 })
    await range('0-9')
    // It is known for a while that it is not stored.
    await Promise.all(Array.from({ length: 10 }, (_, i) => get('/v', { range: `bytes=${i * 10 + 100}-${i * 10 + 109}` })))
    await middleware.drain()
    expect(origin.requests.length).toBe(12)
  })

  // Each seek had the whole fetched again, up to the limit.
  test('what turns out to be too large is tried once in a while, too', async () => {
    const { middleware, origin } = await start(
      (incoming, outgoing) => (incoming.headers.range === undefined ? outgoing.writeHead(200, { 'cache-control': 'max-age=60' }).end(bytes) : fileServer()(incoming, outgoing)),
      {
        rangeMiss: 'fill',
        maxObjectBytes: 1000
      }
    )
    for (let i = 0; i < 4; i++) {
      await range(`${i * 100}-${i * 100 + 9}`)
      await middleware.drain()
    }
    expect(origin.requests.length).toBe(5)
  })

  test('not on behalf of one who has credentials', async () => {
    const { middleware, origin } = await start(fileServer(), { rangeMiss: 'fill' })
    await range('5-9', { authorization: 'Bearer x' })
    await middleware.drain()
    expect(origin.requests.length).toBe(1)
  })
})

describe('several ranges', () => {
  const parsed = (answer: ClientAnswer): { readonly type: string | undefined; readonly range: string | undefined; readonly body: Buffer }[] => {
    const boundary = /^multipart\/byteranges; boundary=([\w-]+)$/.exec(String(answer.headers['content-type']))?.[1] as string
    const text = answer.body.toString('latin1')
    expect(text.endsWith(`\r\n--${boundary}--\r\n`)).toBe(true)
    return `\r\n${text.slice(0, -(boundary.length + 8))}`
      .split(`\r\n--${boundary}\r\n`)
      .slice(1)
      .map((part) => {
        const at = part.indexOf('\r\n\r\n')
        const field = (name: string): string | undefined => new RegExp(`^${name}: (.*)$`, 'm').exec(part.slice(0, at))?.[1]?.trim()
        return { type: field('content-type'), range: field('content-range'), body: Buffer.from(part.slice(at + 4), 'latin1') }
      })
  }

  async function stored(options: Partial<CacheOptions> = {}): Promise<Bench> {
    const started = await start(fileServer(), options)
    await started.get('/v')
    await started.middleware.drain()
    return started
  }

  test('come in one answer, each with where it belongs', async () => {
    const { origin } = await stored()
    const answer = await range(`0-9,1000-1999,${total - 5}-`)
    expect([answer.status, answer.headers['content-length'], answer.cacheStatus]).toEqual([206, String(answer.body.length), 'proxy; hit; ttl=60'])
    const parts = parsed(answer)
    expect(parts.map((part) => part.range)).toEqual([`bytes 0-9/${total}`, `bytes 1000-1999/${total}`, `bytes ${total - 5}-${total - 1}/${total}`])
    expect(parts.every(({ type }) => type === 'video/mp4')).toBe(true)
    expect(Buffer.concat(parts.map(({ body }) => body)).equals(Buffer.concat([bytes.subarray(0, 10), bytes.subarray(1000, 2000), bytes.subarray(-5)]))).toBe(true)
    expect(origin.requests.length).toBe(1)
  })

  test('that overlap come as one', async () => {
    await stored()
    const answer = await range('0-99,50-149,120-199')
    expect([answer.status, answer.headers['content-range'], answer.body.equals(bytes.subarray(0, 200))]).toEqual([206, `bytes 0-199/${total}`, true])
  })

  test('too many are answered whole', async () => {
    await stored()
    const answer = await range(Array.from({ length: 33 }, (_, i) => `${i * 1000}-${i * 1000}`).join())
    expect([answer.status, answer.body.length]).toEqual([200, total])
  })

  test('are cut when what is stored has been replaced meanwhile: bytes of two responses are not mixed', async () => {
    const { store } = await stored()
    let opened = 0
    store.breakOpen = () => {
      opened++
      return undefined
    }
    store.breakGet = () => (opened > 0 ? new Error('away') : undefined)
    await expect(range('0-9,1000-1999')).rejects.toThrow()
    store.breakGet = undefined
    expect((await range('0-9,1000-1999')).status).toBe(206)
  })

  test("of what is not stored are the origin's to answer", async () => {
    const { origin } = await start((_, outgoing) => outgoing.writeHead(206, { 'content-type': 'multipart/byteranges; boundary=x', etag: '"a"', 'cache-control': 'max-age=60' }).end('--x--'))
    expect((await range('0-1,1000-1001')).body.toString()).toBe('--x--')
    await range('0-1,1000-1001')
    expect(origin.requests.length).toBe(2)
  })
})
