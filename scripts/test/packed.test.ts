import { execFile } from 'node:child_process'
import { globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

/** Each package as a user gets it: packed, installed into an empty project with nothing of this workspace around, type-checked and used. */
const root = join(import.meta.dirname, '..', '..')
const run = promisify(execFile)
/** The output of a command; what it printed is the message when it fails. */
const execute: typeof run = (async (file: string, args: string[], options: object) => {
  try {
    return await run(file, args, options)
  } catch (error) {
    const { stdout, stderr } = error as { stdout?: string; stderr?: string }
    throw new Error(`${file} ${args.join(' ')}\n${stdout ?? ''}${stderr ?? ''}`, { cause: error })
  }
}) as typeof run
const work = mkdtempSync(join(tmpdir(), 'proxy-packed-'))
const tarballs: Record<string, string> = {}

/** What a first user would write; its last line of output is compared. Type-checked as TypeScript, run by Node. */
const uses: Record<string, { code: string; output: string }> = {
  '@proxy/pipeline': {
    output: '200 hello',
    code: `import { compose, createHeaders } from '@proxy/pipeline'
import { toFetch } from '@proxy/pipeline/fetch'
const hello = toFetch(compose((next) => (request) => next(request))(async () => ({ status: 200, headers: createHeaders(), body: Buffer.from('hello') })))
const response = await hello(new Request('http://localhost/'))
console.log(response.status, await response.text())`
  },
  '@proxy/cache': {
    output: 'true 5',
    code: `import { MemoryStore } from '@proxy/cache'
import { sampleMeta, storeConformance } from '@proxy/cache/conformance'
const store = new MemoryStore({ maxBytes: 1_000_000 })
const writer = store.put('key', sampleMeta())
writer.write(Buffer.from('hello'))
void storeConformance
console.log(await writer.commit(), (await store.get('key'))?.meta.length)`
  },
  '@proxy/upstream': {
    output: '200 from the origin',
    code: `import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { createRequest, readAll } from '@proxy/pipeline'
import { upstream } from '@proxy/upstream'
const origin = http.createServer((_request, response) => response.end('from the origin')).listen(0, '127.0.0.1')
await new Promise((resolve) => origin.once('listening', resolve))
const handler = upstream({ origin: \`http://127.0.0.1:\${(origin.address() as AddressInfo).port}\` })
const response = await handler(createRequest({ target: '/' }))
console.log(response.status, (await readAll(response.body, 1000)).toString())
await handler.close()
origin.close()`
  },
  '@proxy/balancer': {
    output: 'a b a',
    code: `import { createBalancer } from '@proxy/balancer'
const balancer = createBalancer({ targets: [{ origin: 'http://127.0.0.1:1', name: 'a' }, { origin: 'http://127.0.0.1:2', name: 'b' }] })
const names = [1, 2, 3].map(() => {
  const lease = balancer.pick()
  lease?.release('success')
  return lease?.target.name
})
console.log(names.join(' '))`
  },
  '@proxy/ratelimit': {
    output: 'true true false',
    code: `import { tokenBucket } from '@proxy/ratelimit'
import { redisTokenBucket } from '@proxy/ratelimit/redis'
const limiter = tokenBucket({ rate: 1, perMs: 60_000, burst: 2 })
void redisTokenBucket
console.log([1, 2, 3].map(() => limiter.takeNow('client').allowed).join(' '))`
  },
  '@proxy/auth': {
    output: 'alice undefined',
    code: `import { createBearerVerifier } from '@proxy/auth'
const verifier = createBearerVerifier({ tokens: { 'a-long-secret-token': 'alice' } })
console.log(verifier.verify({ authorization: 'Bearer a-long-secret-token' })?.id, verifier.verify({ authorization: 'Bearer wrong' }))`
  },
  '@proxy/cache-redis': {
    output: 'a miss, at once',
    code: `import { connectRedis, RedisStore } from '@proxy/cache-redis'
const redis = connectRedis('redis://127.0.0.1:1')
const store = new RedisStore({ redis: redis.client })
console.log(await store.get('key').then(() => 'an answer', () => 'a miss, at once'))
await store.close()
await redis.close()`
  },
  '@proxy/store-disk': {
    output: 'true hello',
    code: `import { mkdtemp } from 'node:fs/promises'
import { sampleMeta } from '@proxy/cache/conformance'
import { readAll } from '@proxy/pipeline'
import { DiskStore } from '@proxy/store-disk'
const store = new DiskStore({ directory: await mkdtemp('/tmp/packed-'), maxBytes: 1024 * 1024 })
const writer = store.put('key', sampleMeta())
writer.write(Buffer.from('hello'))
const stored = await writer.commit()
const entry = await store.get('key')
console.log(stored, entry && String(await readAll(await entry.open(), 100)))
await store.close()`
  },
  '@proxy/store-s3': {
    output: 'a miss',
    code: `import { S3Store } from '@proxy/store-s3'
const store = new S3Store({ endpoint: 'http://127.0.0.1:1', region: 'us-east-1', bucket: 'b', accessKeyId: 'k', secretAccessKey: 's' })
console.log(await store.get('key').then(() => 'an answer', () => 'a miss'))
await store.close()`
  },
  '@proxy/server': {
    output: '200',
    code: `import { createServer } from '@proxy/server'
const server = await createServer({ listeners: [{ host: '127.0.0.1', port: 0 }], pools: { origin: { targets: ['http://127.0.0.1:1'] } }, observability: { logLevel: 'silent' } })
await server.listen()
console.log((await fetch(\`\${server.urls[0]}/_proxy/health\`)).status)
await server.close()`
  }
}

const manifests = globSync('{packages,apps}/*/package.json', { cwd: root })
  .map((file) => ({ dir: join(root, file, '..'), manifest: JSON.parse(readFileSync(join(root, file), 'utf8')) as { name: string; private?: boolean; peerDependencies?: Record<string, string> } }))
  .filter(({ manifest }) => !manifest.private)

/** npm's own environment, not that of the npm which runs the tests. */
const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !/^(npm_|VITEST|NODE_ENV)/i.test(key)))

beforeAll(async () => {
  for (const { dir, manifest } of manifests) {
    const { stdout } = await execute('pnpm', ['pack', '--pack-destination', work], { cwd: dir, env })
    const name = stdout
      .trim()
      .split('\n')
      .findLast((line) => line.endsWith('.tgz')) as string
    tarballs[manifest.name] = name.startsWith('/') ? name : join(work, name)
  }
}, 120_000)
afterAll(() => rmSync(work, { recursive: true, force: true }))

test('every public package is used below', () => {
  expect(manifests.map(({ manifest }) => manifest.name).sort()).toEqual(Object.keys(uses).sort())
})

/** Installs the packed packages `names` into an empty project, type-checks `code` there and runs it. Resolves to its last line of output. */
async function tryOut(folder: string, names: readonly string[], code: string): Promise<string | undefined> {
  const project = join(work, folder)
  const local = (wanted: string): string => `file:${tarballs[wanted]}`
  mkdirSync(project)
  writeFileSync(
    join(project, 'package.json'),
    JSON.stringify({
      private: true,
      type: 'module',
      dependencies: Object.fromEntries(names.map((wanted) => [wanted, local(wanted)])),
      // What the package depends on is not published yet: the tarballs of this build stand in.
      overrides: Object.fromEntries(
        Object.keys(tarballs)
          .filter((other) => !names.includes(other))
          .map((other) => [other, local(other)])
      )
    })
  )
  writeFileSync(join(project, 'use.ts'), `${code}\n`)
  writeFileSync(
    join(project, 'tsconfig.json'),
    JSON.stringify({
      compilerOptions: {
        target: 'es2024',
        module: 'nodenext',
        strict: true,
        exactOptionalPropertyTypes: true,
        noEmit: true,
        types: ['node'],
        typeRoots: [join(root, 'node_modules', '@types')],
        skipLibCheck: true
      },
      files: ['use.ts']
    })
  )
  await execute('npm', ['install', '--no-fund', '--no-audit', '--loglevel=error'], { cwd: project, env })
  await execute('tsc', ['-p', project], { cwd: project, env })
  const { stdout } = await execute('node', ['use.ts'], { cwd: project, env, timeout: 60_000 })
  return stdout.trim().split('\n').at(-1)
}

describe.each(manifests)('$manifest.name', ({ manifest: { name, peerDependencies } }) => {
  test('installs into an empty project, types check, and does its work alone', async () => {
    const { code, output } = uses[name] as { code: string; output: string }
    const peers = Object.keys(peerDependencies ?? {}).filter((peer) => peer in tarballs)
    expect(await tryOut(name.replace('/', '+'), [name, ...peers], code)).toBe(output)
  })
})

test('the example of the README: the pipeline embedded in a service', async () => {
  const example = /^```ts\n(.*?)^```$/ms.exec(readFileSync(join(root, 'README.md'), 'utf8'))?.[1] as string
  const origin = `import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
const far = http.createServer((_request, response) => response.setHeader('cache-control', 'max-age=60').end('from afar')).listen(0, '127.0.0.1')
await once(far, 'listening')
const origin = \`http://127.0.0.1:\${(far.address() as AddressInfo).port}\`
`
  const requests = `await once(server, 'listening')
const ask = async () => {
  const response = await fetch(\`http://127.0.0.1:\${(server.address() as AddressInfo).port}/\`)
  return \`\${await response.text()} \${/hit|stored/.exec(response.headers.get('cache-status') ?? '')?.[0]}\`
}
console.log(await ask(), await ask())
process.exit()`
  const local = example.replace('const proxy', `${origin}const proxy`).replace("'https://example.org'", 'origin').replace('.listen(8080)', ".listen(0, '127.0.0.1')")
  expect(local).toContain('upstream({ origin: origin })')
  const code = `${local}${requests}`
  expect(await tryOut('embedded', ['@proxy/pipeline', '@proxy/cache', '@proxy/upstream'], code)).toBe('from afar stored from afar hit')
})
