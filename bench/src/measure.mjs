// Load and measurement: every peer is measured once per round, in an order shuffled anew, and compared with the floor of the same round.
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { loadPrefix, TOKEN } from './peers.mjs'

const hasWrk = spawnSync('wrk', ['--version'], { stdio: 'ignore' }).error === undefined
export const loader = hasWrk ? 'wrk' : 'autocannon'

/** Time that a process has had on a processor so far, milliseconds. Linux. */
function cpuMs(pid) {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const ticksMs = (Number(fields[11]) + Number(fields[12])) * 10
  // To the nanosecond, where the kernel keeps it, but without threads that have ended.
  let threadsMs = 0
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const file = `/proc/${pid}/task/${thread}/schedstat`
    if (existsSync(file)) threadsMs += Number(readFileSync(file, 'utf8').split(' ')[0]) / 1e6
  }
  return Math.max(ticksMs, threadsMs)
}

/** Requests answered and refused in `seconds` of load over 16 kept-alive connections. `unique`: each with a query of its own. `waves`: so many clients, all of them for one URL at a time. */
function load(port, path, seconds, { unique, waves }) {
  const url = `http://127.0.0.1:${port}${path}`
  if (waves !== undefined) {
    const [command, ...args] = [...loadPrefix, process.execPath, join(import.meta.dirname, 'waves.mjs'), String(port), path, String(waves), String(seconds)]
    return JSON.parse(execFileSync(command, args, { encoding: 'utf8' }))
  }
  if (hasWrk) {
    const [command, ...args] = [...loadPrefix, 'wrk', '-t1', '-c16', `-d${seconds}s`, '-H', `Authorization: Bearer ${TOKEN}`, ...(unique ? ['-s', join(import.meta.dirname, 'unique.lua')] : []), url]
    const out = execFileSync(command, args, { encoding: 'utf8' })
    return {
      requests: Number(/(\d+) requests in/.exec(out)[1]),
      bad: Number(/Non-2xx or 3xx responses: (\d+)/.exec(out)?.[1] ?? 0) + (/Socket errors: connect 0, read 0, write 0, timeout 0/.test(out) || !out.includes('Socket errors') ? 0 : 1)
    }
  }
  const [command, ...args] = [
    ...loadPrefix,
    process.execPath,
    createRequire(import.meta.url).resolve('autocannon/autocannon.js'),
    '-c',
    '16',
    '-d',
    String(seconds),
    '-j',
    '-H',
    `Authorization=Bearer ${TOKEN}`,
    ...(unique ? ['--idReplacement', 'true'] : []),
    unique ? `${url}?[<id>]` : url
  ]
  const result = JSON.parse(execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }))
  return { requests: result.requests.total, bad: result.non2xx + result.errors }
}

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/**
 * Rows of one table. `peers` is `[{ name, port, pid, path?, target? }]`, the first one is the floor; a peer without a path of its own is asked for the table's.
 * `differences` is `[{ name, of, from, targetUs }]`: what one peer costs more than another, by their names. `asked` counts the origin's requests so far.
 */
export async function compare({ path, peers, differences = [], unique = false, waves }, { rounds, seconds, asked }) {
  const how = { unique, waves }
  for (const peer of peers) {
    Object.assign(peer, { us: [], rps: [], ratio: [], askedPerWave: [] })
    const warm = load(peer.port, peer.path ?? path, Math.max(1, seconds), how)
    if (warm.bad > 0 || warm.requests === 0) throw new Error(`${peer.name} ${path}: ${warm.bad} bad answers of ${warm.requests}`)
  }
  for (let round = 0; round < rounds; round++) {
    const order = [...peers]
    for (let i = order.length - 1; i > 0; i--) {
      const j = Math.floor(Math.random() * (i + 1))
      ;[order[i], order[j]] = [order[j], order[i]]
    }
    for (const peer of order) {
      const [cpu, originRequests] = [cpuMs(peer.pid), await asked()]
      const { requests, bad, waves: count } = load(peer.port, peer.path ?? path, seconds, how)
      if (bad > 0) throw new Error(`${peer.name} ${path}: ${bad} bad answers`)
      peer.us.push(((cpuMs(peer.pid) - cpu) * 1000) / requests)
      peer.rps.push(requests / seconds)
      if (waves !== undefined) peer.askedPerWave.push(((await asked()) - originRequests) / count)
    }
    for (const peer of peers) peer.ratio.push(peer.us[round] / peers[0].us[round])
  }
  const rows = peers.map(({ name, us, rps, ratio, target, askedPerWave }) => ({
    name,
    us: median(us),
    rps: median(rps),
    ratio: median(ratio),
    spread: [Math.min(...ratio), Math.max(...ratio)],
    target,
    ...(waves !== undefined && { askedPerWave: median(askedPerWave) })
  }))
  for (const { name, of, from, targetUs } of differences) {
    const [more, less] = [of, from].map((wanted) => peers.find((peer) => peer.name === wanted))
    rows.push({ name, us: median(more.us.map((us, round) => us - less.us[round])), targetUs })
  }
  return rows
}
