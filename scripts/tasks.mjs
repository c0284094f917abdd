// The tasks of this repository, run by scripts/run.mjs on the pinned Node with the workspace installed.
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, globSync, lstatSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')
const ci = Boolean(process.env.CI)
/** Versions beside the pinned one that the libraries promise to run on. */
const OTHER_NODES = ['22.19.0', '24.21.0']

/** What `check` has done so far. */
const outcomes = []
/** Commands under way. A signal is theirs: this process ends when they have, after it has stopped the services it started. */
const running = new Set()
let stopped = false
for (const signal of ['SIGTERM', 'SIGHUP', 'SIGINT']) {
  process.on(signal, () => {
    stopped = true
    // Ctrl-C reaches the commands by itself.
    if (signal !== 'SIGINT') for (const child of running) child.kill(signal)
  })
}

const [task, ...args] = process.argv.slice(2)
const tasks = { build, test, typecheck, lint, format, check, start, bench, audit, 'test-nodes': testNodes, help }
if (!(task in tasks)) {
  help()
  process.exit(2)
}
process.exitCode = await tasks[task](args)

function help() {
  console.log(`Tasks: ${Object.keys(tasks).join(', ')}. See CONTRIBUTING.md.`)
  return 0
}

/** The exit status of a command. Not synchronous: signals are handed on while it runs. */
function run(command, commandArgs, options = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, commandArgs, { cwd: root, stdio: 'inherit', ...options })
    running.add(child)
    const ended = (status) => {
      running.delete(child)
      resolve(status)
    }
    child.on('error', (error) => {
      console.error(`${command}: ${error.message}`)
      ended(1)
    })
    child.on('exit', (code, signal) => ended(code ?? (signal ? 1 : 0)))
  })
}

/** In CI nothing is replayed: a cached result is no test. */
function turbo(name, extra = []) {
  return ['run', name, '--log-order=grouped', ...(ci || args.includes('--force') ? ['--force'] : []), ...extra]
}

function build() {
  return run('turbo', turbo('build', ['--output-logs=errors-only']))
}

function typecheck() {
  return run('turbo', turbo('typecheck', ['--output-logs=errors-only']))
}

async function lint() {
  return Math.max(await run('biome', ['ci', '--colors=off', '.']), await run('oxlint', ['--type-aware', '--deny-warnings', '.']))
}

function format() {
  return run('biome', ['check', '--write', '.'])
}

/** Builds, then runs every test, with a real Redis and a real S3 server that are started once, only if some suite has to run at all. */
async function test() {
  const needed = needsServices()
  const status = await withServices(async (env) => {
    // One suite at a time: several of them measure what happens while a service is frozen or killed.
    const suites = await run('turbo', turbo('test', ['--output-logs=new-only', '--concurrency=1', '--continue']), { env })
    return Math.max(suites, await repositoryTests(env))
  }, needed)
  const { passed, failed } = counts()
  if (!process.env.PROXY_CHECK) console.log(`\n${passed} passed, ${failed === 0 && status !== 0 ? 1 : failed} failed`)
  return status
}

/** Architecture and packed packages. Outside turbo, which would keep npm's certificates and proxies from the installation of the packages. Skipped when no file has changed since they passed. */
async function repositoryTests(env) {
  const stamp = join(root, '.report', 'passed.sha256')
  const fingerprint = ci || args.includes('--force') ? undefined : hashFiles()
  if (fingerprint !== undefined && existsSync(stamp) && readFileSync(stamp, 'utf8') === fingerprint) {
    console.log('repository tests: nothing has changed since they passed')
    return 0
  }
  rmSync(stamp, { force: true })
  const status = await run('vitest', ['run'], { env })
  if (status === 0 && fingerprint !== undefined) writeFileSync(stamp, fingerprint)
  return status
}

/** A digest of every file that is not ignored, and of the Node that runs; undefined where git cannot tell. */
function hashFiles() {
  const listed = spawnSync('git', ['ls-files', '-z', '-co', '--exclude-standard'], { cwd: root, encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 })
  if (listed.status !== 0) return undefined
  const digest = createHash('sha256').update(process.version)
  for (const file of listed.stdout.split('\0')) {
    const path = join(root, file)
    if (file === '' || !lstatSync(path, { throwIfNoEntry: false })?.isFile()) continue
    digest.update(`\0${file}\0`).update(readFileSync(path))
  }
  return digest.digest('hex')
}

/** False when turbo has every suite's result already. */
function needsServices() {
  if (ci || args.includes('--force')) return true
  const dry = spawnSync('turbo', ['run', 'test', '--dry=json'], { cwd: root, encoding: 'utf8' })
  try {
    return JSON.parse(dry.stdout).tasks.some(({ task: name, cache }) => name === 'test' && cache.status !== 'HIT')
  } catch {
    // An answer of turbo that we cannot read: take it that something has to run.
    return true
  }
}

async function withServices(body, needed) {
  if (!needed) return body(process.env)
  const { startServices } = await import('../packages/testing/src/services.ts')
  let services
  try {
    services = await startServices({ redis: true, s3: true })
  } catch (error) {
    console.error(error instanceof Error ? error.message : error)
    return 1
  }
  try {
    return await body({ ...process.env, ...services.env })
  } finally {
    await services.stop()
  }
}

/** Sums the reports that the suites left, of this run or replayed from turbo's cache. */
function counts() {
  let passed = 0
  let failed = 0
  for (const file of globSync(['{packages,apps}/*/.report/vitest.json', '.report/vitest.json'], { cwd: root })) {
    const report = JSON.parse(readFileSync(join(root, file), 'utf8'))
    passed += report.numPassedTests
    failed += report.numFailedTests + report.numPendingTests
    if (!report.success && report.numFailedTests === 0) failed++
  }
  return { passed, failed }
}

/** The suites of the libraries on the other versions of Node that they promise to run on. */
async function testNodes() {
  const packages = globSync('packages/*/vitest.config.ts', { cwd: root }).map((file) => file.split('/')[1])
  return withServices(async (env) => {
    let status = 0
    for (const version of OTHER_NODES) {
      const bin = await fetchNode(version)
      if (bin === undefined) return 1
      for (const name of packages.filter((one) => one !== 'testing')) {
        console.log(`\n${name} on Node ${version}`)
        if (stopped) return 1
        const code = await run(bin, [join(root, 'node_modules', 'vitest', 'vitest.mjs'), 'run', '--reporter=dot'], {
          cwd: join(root, 'packages', name),
          env: { ...env, PATH: `${join(bin, '..')}:${process.env.PATH}` }
        })
        record(`${name} on Node ${version}`, code === 0)
        status = Math.max(status, code)
      }
    }
    return status
  }, true)
}

async function fetchNode(version) {
  const name = process.platform === 'darwin' ? `node-bin-darwin-${process.arch}` : `node-${process.platform === 'win32' ? 'win' : process.platform}-${process.arch}`
  const prefix = join(root, '.tools', 'nodes', version)
  const bin = join(prefix, 'node_modules', name, 'bin', 'node')
  if (existsSync(bin)) return bin
  mkdirSync(prefix, { recursive: true })
  const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !/^npm_/i.test(key)))
  const status = await run('npm', ['install', '--prefix', prefix, '--no-save', '--no-package-lock', '--no-fund', '--no-audit', '--loglevel=error', `${name}@${version}`], { env })
  if (status === 0 && existsSync(bin)) return bin
  console.error(`Node ${version} could not be fetched`)
  return undefined
}

function record(name, ok) {
  outcomes.push({ name, ok })
}

/** Everything CI asks for. Goes on after a failure, so that one run shows all. */
async function check() {
  process.env.PROXY_CHECK = '1'
  for (const file of globSync(['{packages,apps}/*/.report', '.report'], { cwd: root })) rmSync(join(root, file), { recursive: true, force: true })
  const step = async (name, body) => {
    if (stopped) return
    console.log(`\n== ${name}`)
    const started = Date.now()
    const status = await body()
    console.log(`== ${name}: ${status === 0 ? 'ok' : 'FAILED'} (${((Date.now() - started) / 1000).toFixed(1)} s)`)
    record(name, status === 0)
  }
  await step('build', build)
  await step('format and lint', lint)
  await step('typecheck', typecheck)
  await step('unused code (knip)', () => run('knip', ['--no-progress']))
  for (const dir of publicPackages()) {
    await step(`publint ${dir}`, () => run('publint', ['--strict', join(root, dir)]))
    await step(`attw ${dir}`, () => run('attw', ['--pack', join(root, dir), '--profile', 'esm-only', '--no-emoji', '--no-color', '--format', 'ascii']))
  }
  // It compares with main, which a clone of one other branch does not have.
  if (spawnSync('git', ['rev-parse', '--verify', '--quiet', 'main'], { cwd: root }).status === 0) await step('changesets', () => run('changeset', ['status']))
  // As a newcomer calls it.
  await step('npm test', () => run('npm', ['test', '--silent']))
  const { passed, failed } = counts()
  await step('libraries on other Node versions', testNodes)
  const bad = outcomes.filter((outcome) => !outcome.ok)
  for (const { name } of bad) console.log(`failed: ${name}`)
  console.log(`\n${passed + outcomes.length - bad.length} passed, ${failed + bad.length} failed`)
  return bad.length === 0 && failed === 0 ? 0 : 1
}

function publicPackages() {
  return globSync('{packages,apps}/*/package.json', { cwd: root })
    .filter((file) => !JSON.parse(readFileSync(join(root, file), 'utf8')).private)
    .map((file) => join(file, '..'))
    .sort()
}

/** The main job: builds what changed, then runs the server. */
async function start() {
  const entry = join(root, 'apps', 'server', 'dist', 'main.js')
  const status = await run('turbo', ['run', 'build', '--filter=@proxy/server...', '--output-logs=errors-only'], { stdio: ['ignore', 'ignore', 'inherit'] })
  if (status !== 0) {
    await build()
    return status
  }
  return stopped ? 0 : run(process.execPath, [entry, ...args], { cwd: process.env.INIT_CWD ?? root })
}

async function bench() {
  // It runs on the sources of the policies, which need no build.
  if (args[0] === 'eviction') return run('node', [join('bench', 'src', 'eviction.mjs')])
  const status = await build()
  return status !== 0 ? status : run('node', [join('bench', 'src', 'main.mjs'), ...args])
}

/** Known advisories of what is installed. Not part of `check`: the endpoint is not reachable everywhere. */
function audit() {
  return run('pnpm', ['audit', '--prod'])
}
