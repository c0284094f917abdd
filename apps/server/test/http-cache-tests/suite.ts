import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { onTestFinished } from 'vitest'
import { tempFolder } from '../helpers.ts'

/** A test of the public suite http-cache-tests (https://cache-tests.fyi). */
export interface SuiteTest {
  readonly id: string
  readonly kind: 'required' | 'optimal' | 'check'
  readonly group: string
}

/** True, or what went wrong. */
export type Results = Readonly<Record<string, true | readonly [string, string]>>

const folder = dirname(fileURLToPath(import.meta.resolve('http-cache-tests/package.json')))

interface Group {
  readonly id: string
  readonly tests: readonly { readonly id: string; readonly kind?: SuiteTest['kind']; readonly browser_only?: boolean }[]
}

/** Every test that is for proxies. */
export async function suiteTests(): Promise<readonly SuiteTest[]> {
  const load = async (file: string): Promise<unknown> => ((await import(pathToFileURL(join(folder, 'tests', file)).href)) as { default: unknown }).default
  const groups = [...((await load('index.mjs')) as Group[]), (await load('surrogate-control.mjs')) as Group]
  return groups.flatMap(({ id: group, tests }) => tests.filter((test) => test.browser_only !== true).map(({ id, kind = 'required' }) => ({ id, kind, group })))
}

/** The suite's origin on a free port, ended when the test has finished. Resolves to its URL. */
export async function startSuiteOrigin(): Promise<string> {
  const port = await freePort()
  const child = run(['--require', fileURLToPath(new URL('loopback.cjs', import.meta.url)), 'server/server.mjs'], {
    npm_config_protocol: 'http',
    npm_config_port: String(port),
    npm_config_pidfile: join(tempFolder(), 'pid')
  })
  onTestFinished(() => {
    child.kill('SIGKILL')
  })
  await once(child.stdout as NonNullable<typeof child.stdout>, 'data')
  return `http://127.0.0.1:${port}`
}

/** Runs the suite once against a proxy in front of its origin. */
export async function runSuite(proxy: string): Promise<Results> {
  const child = run(['--no-warnings', 'cli.mjs'], { npm_config_base: proxy })
  let output = ''
  child.stdout?.on('data', (chunk: Buffer) => {
    output += chunk.toString('utf8')
  })
  await once(child, 'close')
  return JSON.parse(output) as Results
}

/** The suite takes its options from where npm puts them. */
function run(args: readonly string[], options: Readonly<Record<string, string>>): ChildProcess {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(?:npm_|VITEST|NODE_ENV|NODE_OPTIONS)/i.test(name)))
  return spawn(process.execPath, args, { cwd: folder, env: { ...env, npm_config_id: '', npm_package_config_id: '', ...options }, stdio: ['ignore', 'pipe', 'inherit'] })
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
