// Load and measurement: every peer is measured once per round, in an order shuffled anew, and compared with the floor of the same round.
import { execFileSync, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { loadPrefix, TOKEN } from './peers.mjs'

const hasWrk = spawnSync('wrk', ['--version'], { stdio: 'ignore' }).error === undefined
export const loader = hasWrk ? 'wrk' : 'autocannon'

/** User and system time of a process so far, milliseconds. Linux. */
function cpuMs(pid) {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * 10
}

/** Requests answered and refused in `seconds` of load over 16 kept-alive connections. `unique`: each with a query of its own. */
function load(port, path, seconds, unique) {
  const url = `http://127.0.0.1:${port}${path}`
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

/** Rows of one table: `peers` is `[{ name, port, pid, target? }]`, the first one is the floor. */
export function compare(path, peers, { rounds, seconds, unique = false }) {
  for (const peer of peers) {
    peer.us = []
    peer.rps = []
    peer.ratio = []
    const warm = load(peer.port, path, Math.max(1, seconds), unique)
    if (warm.bad > 0 || warm.requests === 0) throw new Error(`${peer.name} ${path}: ${warm.bad} bad answers of ${warm.requests}`)
  }
  for (let round = 0; round < rounds; round++) {
    const order = [...peers]
    for (let i = order.length - 1; i > 0; i--) {
      const j = Math.floor(Math.random() * (i + 1))
      ;[order[i], order[j]] = [order[j], order[i]]
    }
    for (const peer of order) {
      const before = cpuMs(peer.pid)
      const { requests, bad } = load(peer.port, path, seconds, unique)
      if (bad > 0) throw new Error(`${peer.name} ${path}: ${bad} bad answers`)
      peer.us.push(((cpuMs(peer.pid) - before) * 1000) / requests)
      peer.rps.push(requests / seconds)
    }
    for (const peer of peers) peer.ratio.push(peer.us[round] / peers[0].us[round])
  }
  return peers.map((peer) => ({
    name: peer.name,
    us: median(peer.us),
    rps: median(peer.rps),
    ratio: median(peer.ratio),
    spread: [Math.min(...peer.ratio), Math.max(...peer.ratio)],
    target: peer.target
  }))
}
