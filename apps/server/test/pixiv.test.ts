import { type RedisServer, rawExchange, type S3Service, sharedS3, startOrigin, startRedis } from '@proxy/testing'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { pixivPreset, resolveConfig } from '../src/index.ts'
import { isPixivEnvironment } from '../src/presets/pixiv.ts'
import { ask, type Cli, listeningUrl, runCli, until } from './helpers.ts'

const minimal = { S3_ENDPOINT: 'http://s3:9000', S3_BUCKET: 'images', S3_ACCESS_KEY: 'access', S3_SECRET_KEY: 'secret-key' }

describe('the preset', () => {
  const settingsOf = (env: Record<string, string>) => resolveConfig(pixivPreset({ ...minimal, ...env }).config as never)

  test('has the defaults of the image proxy', () => {
    const settings = settingsOf({})
    expect(settings.listeners).toMatchObject([{ host: '0.0.0.0', port: 443 }])
    expect(settings.listeners[0]?.tls).toBe(undefined)
    expect(settings.pools.pixiv).toMatchObject({
      targets: [{ url: 'https://i.pximg.net' }],
      forwardClientHeaders: false,
      xForwarded: false,
      requestHeaders: { set: { referer: 'https://www.pixiv.net/' } },
      timeouts: { headers: 30_000 }
    })
    expect(settings.stores).toMatchObject({ redis: { url: 'redis://localhost:6379' }, s3: { region: 'us-east-1', createBucket: true, firstByteTimeout: 2000 } })
    expect(settings.cache.negative).toMatchObject({ 404: 86_400_000, '5xx': 1_200_000, connectError: 1_200_000 })
    expect(settings.cache.tiers).toEqual([
      { store: 'memory', admit: 'content' },
      { store: 'redis', admit: 'negative' },
      { store: 's3', admit: 'content' }
    ])
    expect(settings.observability.logLevel).toBe('info')
  })

  test('reads every variable', () => {
    const settings = settingsOf({
      SERVER_HOST: '127.0.0.1',
      SERVER_PORT: '8443',
      SSL_CERT_PATH: '/certs/cert.pem',
      SSL_KEY_PATH: '/certs/key.pem',
      UPSTREAM_HOST: 'https://mirror.example.org',
      UPSTREAM_REFERER: 'https://example.org/',
      S3_REGION: 'eu-west-1',
      REDIS_URL: 'redis://cache:6380/2',
      CACHE_404_TTL: '60',
      CACHE_ERROR_TTL: '5',
      RUST_LOG: 'pixiv_image_proxy=debug,tower_http=info'
    })
    expect(settings.listeners).toMatchObject([{ host: '127.0.0.1', port: 8443, tls: { cert: '/certs/cert.pem', key: '/certs/key.pem' } }])
    expect(settings.pools.pixiv).toMatchObject({ targets: [{ url: 'https://mirror.example.org' }], requestHeaders: { set: { referer: 'https://example.org/' } } })
    expect(settings.stores).toMatchObject({
      redis: { url: 'redis://cache:6380/2' },
      s3: { endpoint: 'http://s3:9000', bucket: 'images', region: 'eu-west-1', accessKeyId: 'access', secretAccessKey: 'secret-key' }
    })
    expect(settings.cache.negative).toMatchObject({ 404: 60_000, '5xx': 5000, connectError: 5000 })
    expect(settings.observability.logLevel).toBe('debug')
  })

  test.each([
    ['warn', 'warn'],
    ['tower_http=trace', 'info'],
    ['off', 'silent'],
    ['', 'info']
  ])('RUST_LOG=%s is the level %s', (filter, level) => expect(settingsOf({ RUST_LOG: filter }).observability.logLevel).toBe(level))

  test('tells what it does not do', () => {
    expect(pixivPreset(minimal).warnings).toEqual(['SSL_CERT_PATH and SSL_KEY_PATH are not set: the listener speaks plain HTTP'])
    expect(pixivPreset({ ...minimal, SSL_CERT_PATH: 'a', SSL_KEY_PATH: 'b', S3_COMPRESSION_ENABLED: 'true' }).warnings).toEqual([
      'S3_COMPRESSION_ENABLED is not supported: objects are stored as they are'
    ])
    expect(() => pixivPreset({ ...minimal, S3_ENCRYPTION_ENABLED: 'true' })).toThrow('environment variable S3_ENCRYPTION_ENABLED: encryption is not supported')
  })

  test('is found where its own variables are set, and only there', () => {
    expect(isPixivEnvironment({ S3_ENDPOINT: 'x', UPSTREAM_HOST: 'y' })).toBe(true)
    expect(isPixivEnvironment({ S3_ENDPOINT: 'x', UPSTREAM_REFERER: 'y' })).toBe(true)
    expect(isPixivEnvironment({ S3_ENDPOINT: 'x' })).toBe(false)
    expect(isPixivEnvironment({ UPSTREAM_HOST: 'y', REDIS_URL: 'z' })).toBe(false)
  })
})

describe('with a real Redis, a real S3 and an origin', () => {
  const image = Buffer.alloc(300_000, 'pixels ')
  const referer = 'https://www.pixiv.net/'
  let redis: RedisServer
  let s3: S3Service

  beforeAll(async () => {
    ;[redis, s3] = await Promise.all([startRedis(), sharedS3()])
  })
  afterAll(() => redis?.stop())

  async function startImageOrigin() {
    const origin = await startOrigin((request, response) => {
      const path = request.url ?? ''
      if (request.headers.referer !== referer) response.writeHead(403).end()
      else if (path.startsWith('/img/')) response.writeHead(200, { 'content-type': 'image/png', 'cache-control': 'max-age=31536000', 'content-length': String(image.length) }).end(image)
      else if (path.startsWith('/broken/')) response.writeHead(503).end('out of order')
      else response.writeHead(404).end('no such image')
    })
    onTestFinished(() => origin.close())
    return origin
  }

  function start(upstream: string, env: Record<string, string> = {}): Cli {
    return runCli([], {
      SERVER_HOST: '127.0.0.1',
      SERVER_PORT: '0',
      REDIS_URL: redis.url,
      S3_ENDPOINT: s3.endpoint,
      S3_REGION: s3.region,
      S3_ACCESS_KEY: s3.accessKeyId,
      S3_SECRET_KEY: s3.secretAccessKey,
      S3_BUCKET: `pixiv-${process.pid}-${Date.now()}`,
      UPSTREAM_HOST: upstream,
      UPSTREAM_REFERER: referer,
      ...env
    })
  }

  async function end(cli: Cli): Promise<void> {
    cli.child.kill('SIGTERM')
    expect(await cli.exit).toEqual({ code: 0, signal: null })
  }

  async function redisSays(command: string): Promise<string> {
    return (await rawExchange(redis.port, `${command}\r\nQUIT\r\n`)).toString('latin1')
  }

  test('MISS, stored in the background, restart, HIT from S3; a 404 is remembered in Redis: the origin is asked once for each', async () => {
    const origin = await startImageOrigin()
    const bucket = `pixiv-flow-${process.pid}-${Date.now()}`
    const authority = { host: 'images.example.org' }

    const first = start(origin.url, { S3_BUCKET: bucket, CACHE_404_TTL: '3600' })
    const url = await listeningUrl(first)
    const miss = await ask(`${url}/img/1/a.png?size=large`, {
      headers: { ...authority, cookie: 'session=1', referer: 'https://elsewhere.example/', 'user-agent': 'curl/8', 'x-forwarded-for': '192.0.2.1' }
    })
    expect(miss.status).toBe(200)
    expect(miss.body.equals(image)).toBe(true)
    expect(miss.headers).toMatchObject({
      'x-cache-status': 'MISS',
      'cache-control': 'public, max-age=604800',
      'access-control-allow-origin': '*',
      'content-type': 'image/png',
      'content-length': String(image.length)
    })
    const { url: path, rawHeaders } = origin.requests[0] as (typeof origin.requests)[number]
    expect(path).toBe('/img/1/a.png')
    const sent = rawHeaders.join('\n').toLowerCase()
    expect(sent).toContain('referer\nhttps://www.pixiv.net/')
    expect(sent).toContain('user-agent\nmozilla/5.0')
    for (const word of ['cookie', 'elsewhere', 'curl', 'x-forwarded', 'images.example.org']) expect(sent).not.toContain(word)

    await until(async () => (await ask(`${url}/img/1/a.png`, { headers: authority })).headers['x-cache-status'] === 'HIT')
    const absent = await ask(`${url}/none/b.jpg`, { headers: authority })
    expect(absent).toMatchObject({ status: 404, text: 'no such image', headers: { 'x-cache-status': 'MISS', 'access-control-allow-origin': '*' } })
    expect(absent.headers['cache-control'] ?? '').not.toContain('604800')
    await until(async () => (await redisSays('DBSIZE')).includes(':1'))
    expect(await ask(`${url}/none/b.jpg`, { headers: authority })).toMatchObject({ status: 404, headers: { 'x-cache-status': 'NEGATIVE' } })
    await end(first)

    const [, key] = /\r\n(cache:[^\r]+)\r\n/.exec(await redisSays('KEYS *')) as RegExpExecArray
    const ttl = Number(/:(\d+)/.exec(await redisSays(`TTL "${key}"`))?.[1])
    expect(ttl).toBeGreaterThan(3000)
    expect(ttl).toBeLessThanOrEqual(3600)

    const second = start(origin.url, { S3_BUCKET: bucket, CACHE_404_TTL: '3600' })
    const urlAgain = await listeningUrl(second)
    const hit = await ask(`${urlAgain}/img/1/a.png`, { headers: authority })
    expect(hit).toMatchObject({ status: 200, headers: { 'x-cache-status': 'HIT', 'content-type': 'image/png' } })
    expect(hit.body.equals(image)).toBe(true)
    expect(await ask(`${urlAgain}/none/b.jpg`, { headers: authority })).toMatchObject({ status: 404, headers: { 'x-cache-status': 'NEGATIVE' } })
    await end(second)

    expect(origin.requests.map((request) => request.url)).toEqual(['/img/1/a.png', '/none/b.jpg'])
    for (const secret of [s3.secretAccessKey, s3.accessKeyId]) expect(first.stdout() + first.stderr() + second.stdout() + second.stderr()).not.toContain(secret)
  })

  test('failures of the origin are remembered too, other methods are refused', async () => {
    const origin = await startImageOrigin()
    const cli = start(origin.url)
    const url = await listeningUrl(cli)
    expect((await ask(`${url}/broken/c.png`)).status).toBe(503)
    await until(async () => (await ask(`${url}/broken/c.png`)).headers['x-cache-status'] === 'NEGATIVE')
    expect(origin.requests.filter((request) => request.url === '/broken/c.png').length).toBeLessThanOrEqual(2)
    expect(await ask(`${url}/img/1/a.png`, { method: 'POST', body: 'x' })).toMatchObject({ status: 405, headers: { allow: 'GET, HEAD' } })
    expect(await ask(`${url}/img/1/a.png`, { method: 'HEAD' })).toMatchObject({ status: 200, headers: { 'content-length': String(image.length) }, text: '' })
  })

  test('with Redis and S3 away, it starts at once and serves', async () => {
    const origin = await startImageOrigin()
    const cli = start(origin.url, { REDIS_URL: 'redis://127.0.0.1:1', S3_ENDPOINT: 'http://127.0.0.1:1' })
    const url = await listeningUrl(cli)
    expect((await ask(`${url}/_proxy/ready`)).status).toBe(200)
    for (let i = 0; i < 5; i++) {
      const answer = await ask(`${url}/img/1/${i}.png`)
      expect(answer.status).toBe(200)
      expect(answer.body.equals(image)).toBe(true)
    }
    expect((await ask(`${url}/none`)).status).toBe(404)
    await end(cli)
    expect(cli.stdout()).toContain('"msg":"store failed"')
  })

  test('Redis that dies meanwhile costs nobody an answer', async () => {
    const own = await startRedis()
    onTestFinished(() => own.stop())
    const origin = await startImageOrigin()
    const cli = start(origin.url, { REDIS_URL: own.url })
    const url = await listeningUrl(cli)
    expect((await ask(`${url}/none`)).status).toBe(404)
    await own.kill()
    for (let i = 0; i < 20; i++) {
      expect((await ask(`${url}/none/${i}`)).status).toBe(404)
      expect((await ask(`${url}/img/${i}.png`)).status).toBe(200)
    }
    await end(cli)
  })
})
