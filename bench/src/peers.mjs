// Starts the servers of the table: each its own process, on core 0 where that can be asked for; origin and load on the other core.
import { fork, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'

export const TOKEN = 'bench-4f1c9a7be2d84d6fb0b6c1f3a5e79d20'
const children = []
const dir = mkdtempSync(join(tmpdir(), 'proxy-bench-'))

const has = (command, flag = '--version') => spawnSync(command, [flag], { stdio: 'ignore' }).error === undefined
const canPin = process.platform === 'linux' && cpus().length > 1 && has('taskset')
export const loadPrefix = canPin ? ['taskset', '-c', '1'] : []

function pin(pid, core) {
  if (canPin) spawnSync('taskset', ['-acp', String(core), String(pid)], { stdio: 'ignore' })
}

export function stopAll() {
  for (const child of children) child.kill('SIGKILL')
  rmSync(dir, { recursive: true, force: true })
}

/** A script of this folder as a child that reports its port. */
export function script(name, args = [], core = 0) {
  return new Promise((resolve, reject) => {
    const child = fork(join(import.meta.dirname, name), args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    children.push(child)
    pin(child.pid, core)
    child.once('message', ({ port }) => resolve({ port, pid: child.pid }))
    child.once('error', reject)
    child.once('exit', (code) => reject(new Error(`${name} ended with ${code}`)))
  })
}

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return port
}

async function untilListening(port) {
  const deadline = Date.now() + 15_000
  for (;;) {
    const ok = await new Promise((resolve) => {
      const socket = net.connect(port, '127.0.0.1', () => {
        socket.destroy()
        resolve(true)
      })
      socket.once('error', () => resolve(false))
    })
    if (ok) return
    if (Date.now() > deadline) throw new Error(`nothing listens on ${port}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/** The server of this repository, from its own configuration file, as a user runs it. */
export async function ours(name, origin, { auth, log }) {
  const port = await freePort()
  const file = join(dir, `${name}.yaml`)
  writeFileSync(
    file,
    `listeners: [{ host: 127.0.0.1, port: ${port} }]
pools: { origin: { targets: ["${origin}"] } }
rateLimit: { algorithm: token-bucket, rate: 1000000000, burst: 1000000000 }
${auth ? `auth: { bearer: { tokens: ["${TOKEN}"] } }\n` : ''}observability: { accessLog: ${log} }
`
  )
  const child = spawn(process.execPath, [join(import.meta.dirname, '..', '..', 'apps', 'server', 'dist', 'main.js'), '--config', file], { stdio: ['ignore', 'ignore', 'inherit'] })
  children.push(child)
  pin(child.pid, 0)
  await untilListening(port)
  return { port, pid: child.pid }
}

/** nginx with one worker: proxy_cache for /hit/, plain proxying for /pass/. Undefined where it is not installed. */
export async function nginx(origin) {
  const binary = ['/usr/sbin/nginx', 'nginx'].find((path) => has(path, '-v'))
  if (binary === undefined) return undefined
  const port = await freePort()
  const file = join(dir, 'nginx.conf')
  writeFileSync(
    file,
    `daemon off; master_process off; pid ${dir}/nginx.pid; error_log /dev/null;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 1000000000; sendfile on; tcp_nopush off; tcp_nodelay on;
  client_body_temp_path ${dir}/b; proxy_temp_path ${dir}/p; fastcgi_temp_path ${dir}/f; uwsgi_temp_path ${dir}/u; scgi_temp_path ${dir}/s;
  proxy_cache_path ${dir}/cache levels=1:2 keys_zone=c:10m max_size=100m use_temp_path=off;
  upstream o { server ${origin.replace('http://', '')}; keepalive 256; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:${port};
    proxy_http_version 1.1; proxy_set_header Connection "";
    location /hit/ { proxy_pass http://o; proxy_cache c; add_header Age 10; add_header Cache-Status "proxy; hit; ttl=3590"; }
    location /pass/ { proxy_pass http://o; }
  }
}
`
  )
  const child = spawn(binary, ['-c', file, '-p', dir], { stdio: ['ignore', 'ignore', 'inherit'] })
  children.push(child)
  pin(child.pid, 0)
  await untilListening(port)
  return { port, pid: child.pid }
}
