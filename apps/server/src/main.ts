#!/usr/bin/env node
import { readFileSync } from 'node:fs'

// Everything else is loaded behind this check: libraries fail on a Node that is too old with a stack that tells nobody what to do.
const { engines } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { engines: { node: string } }
const wanted = engines.node.replace('>=', '')
const [wantedMajor = 0, wantedMinor = 0] = wanted.split('.').map(Number)
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
if (major > wantedMajor || (major === wantedMajor && minor >= wantedMinor)) await import('./run.ts')
else {
  process.stderr.write(`proxy-server needs Node ${wanted} or newer; this is ${process.versions.node}\n`)
  process.exitCode = 2
}
