// `npm run bench [-- --rounds N --seconds N]`: CPU of the server process per request, as a ratio to raw node:http (hits), to a bare undici dispatch proxy (pass-through), or to what
// the table has first; medians of interleaved rounds. Loopback only; bounded in time.
import { once } from 'node:events'
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { compare, loader } from './measure.mjs'
import { nginx, ours, script, stopAll, varnish } from './peers.mjs'
import { tablesOf } from './tables.mjs'

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '5' }, seconds: { type: 'string', default: '2' }, only: { type: 'string', default: '' } } })
const options = { rounds: Math.min(50, Number(values.rounds)), seconds: Math.min(10, Number(values.seconds)), asked }
if (process.platform !== 'linux') {
  console.error('The bench reads /proc to see what a server process costs: it runs on Linux only.')
  process.exit(1)
}
process.on('exit', stopAll)
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1))

const { child: originProcess, port: originPort } = await script('origin.mjs', [], 1)
const originUrl = `http://127.0.0.1:${originPort}`

/** Requests that the origin has had. */
async function asked() {
  originProcess.send('requests')
  const [{ requests }] = await once(originProcess, 'message')
  return requests
}

const peers = {
  rawHit: await script('raw-hit.mjs'),
  rawPass: await script('raw-pass.mjs', [originUrl]),
  plain: await ours('plain', originUrl, {}),
  auth: await ours('auth', originUrl, { auth: true }),
  log: await ours('log', originUrl, { auth: true, log: true }),
  disk: await ours('disk', originUrl, { disk: true }),
  nginx: await nginx(originUrl),
  varnish: await varnish(originUrl)
}
const tables = tablesOf(peers).filter(({ title, path }) => `${title} ${path}`.includes(values.only))

console.log(`Node ${process.version}, ${cpus().length} x ${cpus()[0].model.trim()}, ${loader}, ${options.rounds} rounds of ${options.seconds} s, ${new Date().toISOString().slice(0, 10)}`)
if (peers.nginx.length === 0) console.log('nginx is not installed: left out.')
if (peers.varnish === undefined) console.log('Varnish is not installed: left out.')
let missed = 0
const verdict = (text, met) => {
  if (!met) missed++
  return `${text} ${met ? 'met' : 'MISSED'}`
}
for (const table of tables) {
  const waves = table.waves !== undefined
  console.log(`\n| ${table.title} | CPU us/request | ratio | (spread) | requests/s |${waves ? ' origin requests per wave |' : ''} target |\n|---|---|---|---|---|${waves ? '---|' : ''}---|`)
  for (const { name, us, ratio, spread, rps, target, targetUs, askedPerWave } of await compare(table, options)) {
    const cells = [name, us.toFixed(1)]
    if (ratio === undefined) cells.push('', '', '')
    else cells.push(ratio.toFixed(2), spread.map((x) => x.toFixed(2)).join('-'), Math.round(rps))
    if (waves) cells.push(askedPerWave.toFixed(2))
    cells.push(target !== undefined ? verdict(`<= ${target}`, ratio <= target) : targetUs !== undefined ? verdict(`<= ${targetUs} us`, us <= targetUs) : '')
    console.log(`| ${cells.join(' | ')} |`)
  }
}
stopAll()
process.exit(missed > 0 ? 1 : 0)
