// `npm run bench [-- --rounds N --seconds N]`: CPU of the server process per request, as a ratio to raw node:http (hits) and to a bare undici dispatch proxy (pass-through),
// medians of interleaved rounds. Loopback only; bounded in time.
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { compare, loader } from './measure.mjs'
import { nginx, ours, script, stopAll } from './peers.mjs'

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '5' }, seconds: { type: 'string', default: '2' }, only: { type: 'string', default: '' } } })
const options = { rounds: Math.min(50, Number(values.rounds)), seconds: Math.min(10, Number(values.seconds)) }
if (process.platform !== 'linux') {
  console.error('The bench reads /proc to see what a server process costs: it runs on Linux only.')
  process.exit(1)
}
process.on('exit', stopAll)
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1))

const origin = await script('origin.mjs', [], 1)
const originUrl = `http://127.0.0.1:${origin.port}`
const rawHit = { name: 'raw node:http', ...(await script('raw-hit.mjs')) }
const rawPass = { name: 'bare undici dispatch proxy', ...(await script('raw-pass.mjs', [originUrl])) }
const plain = await ours('plain', originUrl, { auth: false, log: false })
const auth = await ours('auth', originUrl, { auth: true, log: false })
const log = await ours('log', originUrl, { auth: true, log: true })
const peer = await nginx(originUrl)

const mine = (target) => [
  { name: 'server', ...plain, target },
  { name: 'server, bearer token', ...auth, target },
  { name: 'server, bearer token, request log', ...log }
]
const others = peer === undefined ? [] : [{ name: 'nginx', ...peer }]
const tables = [
  { title: 'memory hit, 1 KiB', path: '/hit/1k', peers: [rawHit, ...mine(1.6), ...others] },
  { title: 'memory hit, 64 KiB', path: '/hit/64k', peers: [rawHit, ...mine(1.6), ...others] },
  { title: 'memory hit, 1 MiB', path: '/hit/1m', peers: [rawHit, ...mine(1.6), ...others] },
  { title: 'miss with memory fill, 1 KiB, each request another URL', path: '/hit/1k', unique: true, peers: [rawPass, ...mine(), ...others] },
  { title: 'revalidation, 1 KiB', path: '/stale/1k', peers: [rawPass, ...mine()] },
  { title: 'pass-through, 1 KiB', path: '/pass/1k', peers: [rawPass, ...mine(1.4), ...others] },
  { title: 'pass-through, 1 KiB, each request another URL', path: '/pass/1k', unique: true, peers: [rawPass, ...mine(), ...others] }
].filter(({ title, path }) => `${title} ${path}`.includes(values.only))

console.log(`Node ${process.version}, ${cpus().length} x ${cpus()[0].model.trim()}, ${loader}, ${options.rounds} rounds of ${options.seconds} s, ${new Date().toISOString().slice(0, 10)}`)
if (peer === undefined) console.log('nginx is not installed: left out.')
let missed = 0
for (const { title, path, peers, unique } of tables) {
  console.log(`\n| ${title} | CPU us/request | ratio | (spread) | requests/s | target |\n|---|---|---|---|---|---|`)
  for (const row of compare(path, peers, { ...options, unique })) {
    const ok = row.target === undefined || row.ratio <= row.target
    if (!ok) missed++
    console.log(
      `| ${row.name} | ${row.us.toFixed(1)} | ${row.ratio.toFixed(2)} | ${row.spread.map((x) => x.toFixed(2)).join('-')} | ${Math.round(row.rps)} | ${row.target === undefined ? '' : `<= ${row.target} ${ok ? 'met' : 'MISSED'}`} |`
    )
  }
}
stopAll()
process.exit(missed > 0 ? 1 : 0)
