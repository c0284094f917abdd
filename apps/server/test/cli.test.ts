import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { rawExchange, startOrigin } from '@proxy/testing'
import { freePort } from '@proxy/testing/free-port'
import { describe, expect, onTestFinished, test } from 'vitest'
import { ask, entry, listeningUrl, runCli, tempFile, tempFolder, until } from './helpers.ts'

const pool = 'pools: { web: { targets: ["http://127.0.0.1:9"] } }\n'

/** A port that somebody listens on. */
async function usedPort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.close()
  })
  return (server.address() as AddressInfo).port
}

async function isRefused(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' })
    socket.once('connect', () => {
      socket.destroy()
      resolve(false)
    })
    socket.once('error', () => resolve(true))
  })
}

describe('bad input: status 2, one message, nothing listens', () => {
  async function expectRefusal(args: readonly string[], message: string | RegExp, env: Record<string, string> = {}, port?: number): Promise<void> {
    const cli = runCli(args, env)
    expect(await cli.exit).toEqual({ code: 2, signal: null })
    expect(cli.stderr()).toMatch(message)
    expect(cli.stderr()).not.toMatch(/\n {4}at /)
    expect(cli.stdout()).toBe('')
    if (port !== undefined) expect(await isRefused(port)).toBe(true)
  }
  const listeners = (port: number): string => `listeners: [{ port: ${port} }]\n`

  test('an unknown key', async () => {
    const port = await freePort()
    const file = tempFile(`${pool}${listeners(port)}routs: []\n`)
    await expectRefusal(['--config', file], `${file}:3:1: routs: unknown key; did you mean "routes"?\n`, {}, port)
  })

  test('a wrong type', async () => {
    const port = await freePort()
    const file = tempFile(`${pool}${listeners(port)}observability:\n  accessLog: sometimes\n`)
    await expectRefusal(['--config', file], `${file}:4:14: observability.accessLog: must be true or false, not text\n`, {}, port)
  })

  test('an impossible value', async () => {
    const file = tempFile(`${pool}listeners:\n  - port: 99999\n`)
    await expectRefusal(['--config', file], `${file}:3:11: listeners[0].port: must be at most 65535\n`)
  })

  // Beneath --upstream such a file was replaced as a whole, silently: the server ran with none of its settings. Without it, the command line was blamed.
  test('a file that is no mapping, empty, or lacks what is needed, whatever the flags say', async () => {
    const upstream = ['--upstream', 'http://127.0.0.1:9', '--listen', '127.0.0.1:0']
    const list = tempFile('- pools\n')
    const utf16 = tempFile('')
    writeFileSync(utf16, Buffer.from(`\ufeff${pool}`, 'utf16le'))
    for (const flags of [[], upstream]) {
      await expectRefusal(['--config', list, ...flags], `${list}:1:1: must be a mapping, not a list\n`)
      await expectRefusal(['--config', utf16, ...flags], `${utf16}:1:1: must be a mapping, not text\n`)
    }
    const empty = tempFile('')
    await expectRefusal(['--config', empty], `${empty}:1:1: pools: is missing: a mapping is wanted\n`)
    const lacking = tempFile('listeners: [{ port: 0 }]\n')
    await expectRefusal(['--config', lacking, '--listen', '127.0.0.1:0', '--access-log', 'off'], `${lacking}:1:1: pools: is missing: a mapping is wanted\n`)
  })

  test('an unreadable file', async () => {
    const folder = tempFolder()
    await expectRefusal(['--config', `${folder}/none.yaml`], `${folder}/none.yaml: cannot be read: there is no such file\n`)
  })

  test('a variable that is not set', async () => {
    const file = tempFile(`${pool}admin:\n  key: "$\{ADMIN_KEY}"\n`)
    await expectRefusal(['--config', file], `${file}:3:8: admin.key: the environment variable ADMIN_KEY is not set\n`)
  })

  test('a Redis URL that is none, without repeating it', async () => {
    const port = await freePort()
    const file = tempFile(`${pool}${listeners(port)}stores: { redis: { url: "http://u:hunter2@h" } }\ncache: { tiers: [redis] }\n`)
    const cli = runCli(['--config', file])
    expect((await cli.exit).code).toBe(2)
    expect(cli.stderr()).toMatch(`${file}:3:25: stores.redis.url: not a Redis URL`)
    expect(cli.stderr()).not.toContain('hunter2')
    expect(await isRefused(port)).toBe(true)
  })

  test('a store that refuses its settings, beside one that is connected already', async () => {
    const file = tempFile(`${pool}stores: { redis: { url: "redis://127.0.0.1:1" }, s3: { bucket: b, accessKeyId: id } }\ncache: { tiers: [redis, s3] }\n`)
    await expectRefusal(['--config', file], `${file}:2:50: stores.s3: accessKeyId and secretAccessKey belong together\n`)
  })

  test('a certificate that is not there, and one that is none', async () => {
    const port = await freePort()
    const file = tempFile(`${pool}listeners:\n  - { port: ${port}, tls: { cert: none.pem, key: none.pem } }\n`)
    await expectRefusal(['--config', file], /:3:\d+: listeners\[0\]\.tls\.cert: there is no file .*\/none\.pem\n/, {}, port)
    const text = tempFile('no certificate', 'x.pem')
    const other = tempFile(`${pool}listeners:\n  - { port: ${port}, tls: { cert: ${text}, key: ${text} } }\n`)
    await expectRefusal(['--config', other], /:3:\d+: listeners\[0\]\.tls: the certificate and key cannot be used: /, {}, port)
  })

  test('a port in use, of the first or the second listener', async () => {
    const used = await usedPort()
    const free = await freePort()
    const file = tempFile(`${pool}listeners:\n  - port: ${free}\n  - port: ${used}\n`)
    const cli = runCli(['--config', file])
    expect((await cli.exit).code).toBe(2)
    expect(cli.stderr()).toBe(`${file}:4:11: listeners[1].port: cannot listen on 127.0.0.1:${used}: the port is in use\n`)
    expect(await isRefused(free)).toBe(true)
    await expectRefusal(['--upstream', 'http://127.0.0.1:9', '--listen', `127.0.0.1:${used}`], `--listen: listeners[0].port: cannot listen on 127.0.0.1:${used}: the port is in use\n`)
    await expectRefusal(['--listen', `127.0.0.1:${used}`], `--listen: listeners[0].port: cannot listen on 127.0.0.1:${used}: the port is in use\n`)
  })

  test('an upstream that is no URL', async () => {
    await expectRefusal(['--upstream', 'localhost:3000'], '--upstream: pools.default.targets[0]: is a URL such as http://10.0.0.7:8080 or https://images.example.org, not "localhost:3000"\n')
    await expectRefusal(['--upstream', 'http://127.0.0.1:9,nonsense'], '--upstream: pools.default.targets[1]: is a URL such as')
    await expectRefusal(['--upstream', 'http://127.0.0.1:9,'], 'one URL or several')
  })

  test('arguments that make no sense', async () => {
    await expectRefusal(['--listen', 'here'], 'HOST:PORT is wanted')
    await expectRefusal(['--listen', '127.0.0.1:70000'], 'HOST:PORT is wanted')
    await expectRefusal(['--access-log', 'maybe'], 'on or off is wanted')
    await expectRefusal(['--preset', 'nginx'], 'the presets are: pixiv')
    await expectRefusal(['--upsteam', 'http://h'], "unknown option '--upsteam'")
    await expectRefusal(['extra'], 'too many arguments')
  })

  test('an upstream for a file whose routes go elsewhere', async () => {
    const file = tempFile(`${pool}routes: [{ pool: web }]\n`)
    await expectRefusal(['--config', file, '--upstream', 'http://127.0.0.1:9'], '--upstream: sets the pool "default", which no route uses\n')
  })

  // The file was told that it lacked routes for its several pools, of which it has one.
  test('an upstream for a file whose only pool is another', async () => {
    const file = tempFile(pool)
    await expectRefusal(['--config', file, '--upstream', 'http://127.0.0.1:9'], '--upstream: sets the pool "default", beside "web": routes must say which requests go where\n')
  })

  test('authorities of a pool that are none, by their key', async () => {
    const ca = tempFile('no certificate', 'ca.pem')
    const file = tempFile(`listeners: [{ port: 0 }]\npools:\n  web:\n    targets: ["https://127.0.0.1:9"]\n    tls: { ca: ${ca} }\n`)
    await expectRefusal(['--config', file], `${file}:5:16: pools.web.tls.ca: has no certificate in PEM\n`)
  })

  test('settings of the environment, by the name of the variable', async () => {
    const env = { S3_ENDPOINT: 'http://127.0.0.1:9', UPSTREAM_HOST: 'i.pximg.net', S3_BUCKET: 'b', S3_ACCESS_KEY: 'access', S3_SECRET_KEY: 'secret', SERVER_PORT: 'https', CACHE_404_TTL: 'a day' }
    const cli = runCli([], env)
    expect((await cli.exit).code).toBe(2)
    expect(cli.stderr().split('\n').sort()).toEqual([
      '',
      'environment variable CACHE_404_TTL: cache.negative.404: is a duration: a number with a unit, such as "30s", "250ms", "1h30m" or "7d", not "a day"',
      'environment variable SERVER_PORT: listeners[0].port: must be a number, not text',
      'environment variable UPSTREAM_HOST: pools.pixiv.targets[0]: is a URL such as http://10.0.0.7:8080 or https://images.example.org, not "i.pximg.net"'
    ])
    const { S3_BUCKET: _, ...noBucket } = env
    const without = runCli(['--preset', 'pixiv'], { ...noBucket, SERVER_PORT: '0', UPSTREAM_HOST: 'http://h', CACHE_404_TTL: '1' })
    expect((await without.exit).code).toBe(2)
    expect(without.stderr()).toBe('environment variable S3_BUCKET: stores.s3.bucket: is missing: text is wanted\n')
  })
})

// The libraries were loaded first: undici ended the process, with a stack and status 1, on a Node without what it uses.
test('a Node that is too old: status 2 and the version that is wanted, before anything else is loaded', async () => {
  const old = 'Object.defineProperty(process, "versions", { value: { ...process.versions, node: "24.10.9" } })'
  const cli = runCli(['--version'], { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(old)}` })
  expect(await cli.exit).toEqual({ code: 2, signal: null })
  expect(cli.stderr()).toBe('proxy-server needs Node 24.11 or newer; this is 24.10.9\n')
  const imports = [...readFileSync(entry, 'utf8').matchAll(/^import\b.*?["']([^"']+)["'];?$/gm)].map(([, specifier]) => specifier)
  expect(imports.filter((specifier) => !/^(?:node:)?fs$/.test(specifier as string))).toEqual([])
})

test('--help and --version', async () => {
  const help = runCli(['--help'])
  expect((await help.exit).code).toBe(0)
  expect(help.stdout()).toContain('--upstream <urls>')
  const version = runCli(['--version'])
  expect((await version.exit).code).toBe(0)
  expect(version.stdout()).toMatch(/^\d+\.\d+\.\d+\n$/)
})

test('--upstream and --listen: in front of anything, with a cache, without auth or limits', async () => {
  const origin = await startOrigin((request, response) => response.writeHead(200, { 'cache-control': 'max-age=60', 'x-path': request.url ?? '' }).end('body'))
  onTestFinished(() => origin.close())
  const other = await startOrigin((_, response) => response.writeHead(200, { 'cache-control': 'no-store' }).end('other'))
  onTestFinished(() => other.close())
  const port = await freePort()
  const cli = runCli(['--upstream', `${origin.url},${other.url}`, '--listen', `127.0.0.1:${port}`])
  const url = await listeningUrl(cli)
  expect(url).toBe(`http://127.0.0.1:${port}`)
  const answers = await Promise.all([1, 2, 3, 4].map((index) => ask(`${url}/${index}`)))
  expect(answers.map(({ text }) => text).sort()).toEqual(['body', 'body', 'other', 'other'])
  const cached = answers.findIndex(({ text }) => text === 'body')
  expect((await ask(`${url}/${cached + 1}`)).headers['cache-status']).toContain('hit')
  // Far more than any limit somebody might have thought of.
  for (let i = 0; i < 300; i++) expect((await ask(`${url}/${cached + 1}`)).status).toBe(200)
})

test('--config, with --listen and --upstream over it', async () => {
  const origin = await startOrigin((_, response) => response.end('from the flag'))
  onTestFinished(() => origin.close())
  const port = await freePort()
  const file = tempFile(`listeners: [{ port: ${port} }]\npools: { default: { targets: ["http://127.0.0.1:9"], retries: 0 } }\nadmin: { prefix: /own }\n`)
  const url = await listeningUrl(runCli(['--config', file, '--upstream', origin.url, '--listen', '127.0.0.1:0']))
  expect(Number(new URL(url).port)).not.toBe(port)
  expect((await ask(url)).text).toBe('from the flag')
  expect((await ask(`${url}/own/health`)).status).toBe(200)
})

describe('SIGTERM', () => {
  const content = randomBytes(5 * 1024 * 1024)

  async function slowlyDownloading(body = content): Promise<{ cli: ReturnType<typeof runCli>; url: string; rest: () => Promise<Buffer> }> {
    const origin = await startOrigin((_, response) => response.writeHead(200, { 'content-length': String(body.length) }).end(body))
    onTestFinished(() => origin.close())
    const cli = runCli(['--upstream', origin.url, '--listen', '127.0.0.1:0'])
    const url = await listeningUrl(cli)
    const socket = connect({ port: Number(new URL(url).port), host: '127.0.0.1' })
    onTestFinished(() => {
      socket.destroy()
    })
    socket.write('GET / HTTP/1.1\r\nHost: h\r\n\r\n')
    const chunks: Buffer[] = []
    await new Promise<void>((resolve) =>
      socket.once('data', (chunk: Buffer) => {
        chunks.push(chunk)
        socket.pause()
        resolve()
      })
    )
    const rest = (): Promise<Buffer> =>
      new Promise((resolve) => {
        socket.on('data', (chunk: Buffer) => chunks.push(chunk))
        // A cut may come as a reset; what counts is what has arrived.
        socket.on('error', () => {})
        socket.on('close', () => resolve(Buffer.concat(chunks)))
        socket.resume()
      })
    return { cli, url, rest }
  }

  test('a download of 5 MB under way ends whole, nobody new is let in, the status is 0', async () => {
    const { cli, url, rest } = await slowlyDownloading()
    cli.child.kill('SIGTERM')
    await until(() => isRefused(Number(new URL(url).port)))
    expect(cli.child.exitCode).toBe(null)
    const message = await rest()
    expect(message.subarray(message.indexOf('\r\n\r\n') + 4).equals(content)).toBe(true)
    expect(await cli.exit).toEqual({ code: 0, signal: null })
  })

  test('a second one cuts what is under way, and the status says so', async () => {
    // More than the buffers of two sockets hold.
    const large = Buffer.alloc(40 * 1024 * 1024)
    const { cli, url, rest } = await slowlyDownloading(large)
    cli.child.kill('SIGTERM')
    await until(() => isRefused(Number(new URL(url).port)))
    cli.child.kill('SIGTERM')
    expect(await cli.exit).toEqual({ code: 1, signal: null })
    expect((await rest()).length).toBeLessThan(large.length)
  })
})

test('no request ends the process', async () => {
  const origin = await startOrigin((request, response) => {
    if (request.url === '/reset') request.socket.destroy()
    else if (request.url === '/garbage') request.socket.end('HTTP/9.9 garbage\r\n\r\n')
    else if (request.url === '/early') response.socket?.end('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort')
    else response.end('ok')
  })
  onTestFinished(() => origin.close())
  const cli = runCli(['--upstream', origin.url, '--listen', '127.0.0.1:0'])
  const url = await listeningUrl(cli)
  const port = Number(new URL(url).port)
  const messages = [
    'GET / HTTP/1.1\r\n\r\n',
    'GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n',
    'GET http://[ HTTP/1.1\r\nHost: h\r\n\r\n',
    'GET /\u0000 HTTP/1.1\r\nHost: h\r\n\r\n',
    'CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n',
    'OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n',
    'GET /_proxy/%zz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n',
    'GET /_proxy/metrics HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n',
    'POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
    'POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n',
    `GET / HTTP/1.1\r\nHost: h\r\nX: ${'x'.repeat(70_000)}\r\n\r\n`,
    'GET /x HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: upgrade, close\r\n\r\n',
    'GET /reset HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n',
    'GET /garbage HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n',
    'GET /early HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n',
    'PUT /x HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\nConnection: close\r\n\r\n',
    '\r\n\r\n\u0016\u0003\u0001'
  ]
  for (const message of messages) {
    const answer = await rawExchange(port, Buffer.from(message, 'latin1'), { end: true }).catch(() => Buffer.alloc(0))
    if (answer.length > 0) expect(answer.toString('latin1'), message.slice(0, 60)).toMatch(/^HTTP\/1\.1 [2345]\d\d /)
  }
  expect((await ask(`${url}/ok`)).text).toBe('ok')
  expect(cli.child.exitCode).toBe(null)
  expect(cli.stdout()).not.toMatch(/"level":"error"/)
  expect(cli.stderr()).toBe('')
})
