// `npm run bench -- eviction`: hit ratios of the eviction policies of MemoryStore, on traces made from fixed seeds. The policies are the store's own; entries have sizes and no bodies.
import { Lru } from '../../packages/cache/src/lru.ts'
import { S3Fifo } from '../../packages/cache/src/s3-fifo.ts'
import { Sieve } from './sieve.mjs'
import { traces } from './traces.mjs'

const policies = {
  lru: () => new Lru(),
  sieve: () => new Sieve(),
  's3-fifo': (maxBytes) => new S3Fifo(maxBytes)
}

/** Hits per request and bytes hit per byte asked for, without the first quarter, in which the cache fills. */
function replay({ ids, sizeOf }, policy, maxBytes) {
  const resident = new Map()
  let [bytes, hits, hitBytes, asked, askedBytes] = [0, 0, 0, 0, 0]
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i]
    const size = sizeOf(id)
    const counts = i >= ids.length / 4
    if (counts) {
      asked++
      askedBytes += size
    }
    const entry = resident.get(id)
    if (entry !== undefined) {
      policy.hit(entry)
      if (counts) {
        hits++
        hitBytes += size
      }
    } else if (size <= maxBytes / 8) {
      while (bytes + size > maxBytes) {
        const out = policy.evict()
        resident.delete(out.id)
        bytes -= out.bytes
      }
      const added = { key: `https://example.org/${id}`, id, bytes: size, newer: undefined, older: undefined, mark: 0 }
      resident.set(id, added)
      policy.add(added)
      bytes += size
    }
  }
  return { hits: hits / asked, bytes: hitBytes / askedBytes }
}

const percent = (ratio) => (100 * ratio).toFixed(1)
console.log(`Hit ratios in percent where the cache holds 1 % and 10 % of the popular objects (of their bytes, where sizes differ), ${new Date().toISOString().slice(0, 10)}\n`)
const names = Object.keys(policies)
console.log(`| trace | ${names.map((name) => `${name} 1 %`).join(' | ')} | ${names.map((name) => `${name} 10 %`).join(' | ')} |`)
console.log(`| --- |${' --- |'.repeat(2 * names.length)}`)
for (const make of traces) {
  const made = make()
  const results = [0.01, 0.1].flatMap((share) => names.map((name) => replay(made, policies[name](made.footprint * share), made.footprint * share)))
  console.log(`| ${made.name} | ${results.map(({ hits }) => percent(hits)).join(' | ')} |`)
  if (made.sizeOf(0) !== 1) console.log(`| the same, bytes | ${results.map(({ bytes }) => percent(bytes)).join(' | ')} |`)
}
