// A test process of its own: starts what its first argument says, prints it as one line of JSON, then ends as its second argument says.
import { startCeph } from '../../src/ceph-cluster.ts'
import { startRedis } from '../../src/redis-server.ts'
import { sharedRedisUrl } from '../../src/services.ts'

const [what, ending] = process.argv.slice(2)

const start = {
  redis: async () => ({ pids: [(await startRedis()).pid] }),
  frozenRedis: async () => {
    const server = await startRedis()
    server.freeze()
    return { pids: [server.pid] }
  },
  s3: async () => ({ pids: (await startCeph({ accessKeyId: 'key', secretAccessKey: 'secret' })).processes.map((child) => child.pid) }),
  sharedRedis: async () => ({ pids: [], url: await sharedRedisUrl() })
}[what ?? '']
if (!start) throw new Error(`unknown: ${what}`)
console.log(JSON.stringify(await start()))

if (ending === 'wait') setInterval(() => {}, 60_000)
if (ending === 'exit') process.exit(3)
if (ending === 'throw') throw new Error('on purpose')
