// Starts the servers of the table: each its own process, on core 0 where that can be asked for; origin and load on the other core.
import { fork, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
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
    child.once('message', ({ port }) => resolve({ port, pid: child.pid, child }))
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
export async function ours(name, origin, { auth = false, log = false, disk = false }) {
  const port = await freePort()
  const file = join(dir, `${name}.yaml`)
  writeFileSync(
    file,
    `listeners: [{ host: 127.0.0.1, port: ${port} }]
pools: { origin: { targets: ["${origin}"] } }
rateLimit: { algorithm: token-bucket, rate: 1000000000, burst: 1000000000 }
${auth ? `auth: { bearer: { tokens: ["${TOKEN}"] } }\n` : ''}${disk ? `cache: { tiers: [disk] }\nstores: { disk: { directory: ${dir}/disk, maxSize: 100MB } }\n` : ''}observability: { accessLog: ${log} }
`
  )
  const child = spawn(process.execPath, [join(import.meta.dirname, '..', '..', 'apps', 'server', 'dist', 'main.js'), '--config', file], { stdio: ['ignore', 'ignore', 'inherit'] })
  children.push(child)
  pin(child.pid, 0)
  await untilListening(port)
  return { port, pid: child.pid }
}

/** What nginx is measured with for hits; the first one stands in the other tables. All of them have the same cache: files, which the kernel holds in memory. */
const nginxVariants = [
  { name: 'nginx', settings: 'sendfile on; tcp_nopush off; open_file_cache off;' },
  { name: 'nginx, open_file_cache', settings: 'sendfile on; tcp_nopush off; open_file_cache max=1000 inactive=60s;' },
  { name: 'nginx, sendfile off', settings: 'sendfile off; tcp_nopush off; open_file_cache off;' },
  { name: 'nginx, tcp_nopush', settings: 'sendfile on; tcp_nopush on; open_file_cache off;' }
]

/** nginx with one worker, a port for each variant: proxy_cache for /hit/, with proxy_cache_lock for /slow/, plain proxying for /pass/. None where it is not installed. */
export async function nginx(origin) {
  const binary = ['/usr/sbin/nginx', 'nginx'].find((path) => has(path, '-v'))
  if (binary === undefined) return []
  const variants = []
  for (const { name, settings } of nginxVariants) variants.push({ name, settings, port: await freePort() })
  const file = join(dir, 'nginx.conf')
  const server = ({ port, settings }) => `
  server {
    listen 127.0.0.1:${port};
    ${settings}
    proxy_http_version 1.1; proxy_set_header Connection "";
    location /hit/ { proxy_pass http://o; proxy_cache c; add_header Age 10; add_header Cache-Status "proxy; hit; ttl=3590"; }
    location /slow/ { proxy_pass http://o; proxy_cache c; proxy_cache_lock on; }
    location /pass/ { proxy_pass http://o; }
  }`
  writeFileSync(
    file,
    `daemon off; master_process off; pid ${dir}/nginx.pid; error_log /dev/null;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 1000000000; tcp_nodelay on;
  client_body_temp_path ${dir}/b; proxy_temp_path ${dir}/p; fastcgi_temp_path ${dir}/f; uwsgi_temp_path ${dir}/u; scgi_temp_path ${dir}/s;
  proxy_cache_path ${dir}/cache levels=1:2 keys_zone=c:10m max_size=100m use_temp_path=off;
  upstream o { server ${origin.replace('http://', '')}; keepalive 256; keepalive_requests 1000000000; }
${variants.map(server).join('')}
}
`
  )
  const child = spawn(binary, ['-c', file, '-p', dir], { stdio: ['ignore', 'ignore', 'inherit'] })
  children.push(child)
  pin(child.pid, 0)
  for (const { port } of variants) await untilListening(port)
  return variants.map(({ name, port }) => ({ name, port, pid: child.pid }))
}

/** Varnish with its cache in memory: /pass/ is passed, everything else looked up, whoever asks. Undefined where it is not installed. */
export async function varnish(origin) {
  const binary = ['/usr/sbin/varnishd', 'varnishd'].find((path) => has(path, '-V'))
  if (binary === undefined) return undefined
  const port = await freePort()
  const { hostname, port: originPort } = new URL(origin)
  const file = join(dir, 'bench.vcl')
  writeFileSync(
    file,
    `vcl 4.1;
backend default { .host = "${hostname}"; .port = "${originPort}"; }
sub vcl_recv {
  unset req.http.Authorization;
  if (req.url ~ "^/pass/") { return (pass); }
  return (hash);
}
`
  )
  const child = spawn(binary, ['-F', '-j', 'none', '-n', join(dir, 'varnish'), '-f', file, '-a', `127.0.0.1:${port}`, '-s', 'malloc,100m', '-p', 'thread_pools=1'], {
    stdio: ['ignore', 'ignore', 'ignore']
  })
  children.push(child)
  await untilListening(port)
  // The process that was started watches over the one that serves.
  const pid = Number(readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim().split(' ')[0])
  pin(pid, 0)
  return { name: 'varnish', port, pid }
}
