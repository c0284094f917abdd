import { DiskPurgeLog } from '../src/index.ts'

/** Adds purges by tag, four at a time, and prints the number of each once it is kept. Arguments: directory, name, how many (0: until it is killed), maxRecords. */
const [directory = '', name = '', count, maxRecords] = process.argv.slice(2)
const log = new DiskPurgeLog({ directory, maxRecords: Number(maxRecords), pollMs: 50, writeTimeoutMs: 20_000 })
await log.prepare()
console.log('ready')
let next = 0
const total = Number(count) || Number.POSITIVE_INFINITY
await Promise.all(
  Array.from({ length: 4 }, async () => {
    while (next < total) {
      const i = next++
      const at = Date.now()
      await log.add({ scope: 'tag', value: `${name}-${i}`, at, soft: false })
      console.log(`${i} ${at}`)
    }
  })
)
await log.close()
