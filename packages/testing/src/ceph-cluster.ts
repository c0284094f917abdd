import { randomUUID } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type CephOptions, cephConfig } from './ceph-config.ts'
import { type Child, startChild, untilReady } from './child.ts'
import { freePort } from './free-port.ts'
import { rawExchange } from './raw-client.ts'
import { runCommand } from './run-command.ts'
import { cephBinaries, type ServiceBinaries } from './service-binaries.ts'
import { createTempDir } from './temp-dir.ts'

export interface CephCluster {
  readonly gatewayPort: number
  /** The process that speaks S3. */
  readonly gateway: Child
  /** All of them. */
  readonly processes: readonly Child[]
  /** Ends all processes and removes their data. */
  stop(): Promise<void>
}

export interface Credentials {
  accessKeyId: string
  secretAccessKey: string
}

// 0.6 s on an idle machine
const startTimeoutMs = 60_000

/** Starts a one-node Ceph with an S3 gateway on 127.0.0.1 and creates one user. Rejects with the log of the process that failed. */
export async function startCeph(user: Credentials): Promise<CephCluster> {
  const binaries = await cephBinaries()
  for (let attempt = 1; ; attempt++) {
    try {
      return await startOnce(binaries, user)
    } catch (error) {
      // another process took a port between the look and the use
      if (attempt < 5 && /Address already in use|unable to bind/i.test(String(error))) continue
      throw error
    }
  }
}

async function startOnce(binaries: ServiceBinaries, user: Credentials): Promise<CephCluster> {
  const temp = await createTempDir('ceph-')
  const processes: Child[] = []
  const stop = async () => {
    await Promise.all(processes.map((child) => child.kill()))
    await temp.remove()
  }
  try {
    const options = { dir: temp.path, fsid: randomUUID(), monitorPort: await freePort(), gatewayPort: await freePort() }
    const node = new Node(options, binaries, processes)
    await node.prepare()
    await node.startStore()
    // Both wait for the same first pools; whoever comes second finds them.
    const [gateway] = await Promise.all([node.startGateway(), node.createUser(user)])
    return { gatewayPort: options.gatewayPort, gateway, processes, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

class Node {
  readonly #options: CephOptions
  readonly #binaries: ServiceBinaries
  readonly #processes: Child[]
  readonly #env: NodeJS.ProcessEnv

  constructor(options: CephOptions, binaries: ServiceBinaries, processes: Child[]) {
    this.#options = options
    this.#binaries = binaries
    this.#processes = processes
    this.#env = { ...binaries.env, CEPH_CONF: this.#path('ceph.conf'), CEPH_ARGS: '' }
  }

  /** Writes the configuration and the empty stores. */
  async prepare(): Promise<void> {
    await Promise.all(['mon', 'osd', 'rgw'].map((name) => mkdir(this.#path(name))))
    await writeFile(this.#path('ceph.conf'), cephConfig(this.#options, this.#binaries))
    const map = this.#path('monmap')
    await this.#run('monmaptool', ['--create', '--addv', 'm', `[v2:127.0.0.1:${this.#options.monitorPort}]`, '--fsid', this.#options.fsid, map])
    await Promise.all([this.#run('ceph-mon', ['-i', 'm', '--mkfs', '--monmap', map]), this.#run('ceph-osd', ['-i', '0', '--mkfs', '--monmap', map, '--osd-uuid', randomUUID(), '--no-mon-config'])])
  }

  /** Resolves when the object store takes part in the cluster. A gateway started earlier would wait for it in steps of five seconds. */
  async startStore(): Promise<void> {
    const [monitor, store] = await Promise.all([this.#start('ceph-mon', ['-i', 'm', '-f'], 'mon.out'), this.#start('ceph-osd', ['-i', '0', '-f'], 'osd.out')])
    // The store registers itself with the monitor.
    await untilReady(store, this.#path('osd.out'), startTimeoutMs, async () => {
      if (monitor.ended) throw new Error(`ceph-mon ended (${monitor.ended}): ${await this.#read('mon.out')}`)
      return (await this.#read('osd.0.log')).includes('state: booting -> active')
    })
  }

  async startGateway(): Promise<Child> {
    const gateway = await this.#start('radosgw', ['-n', 'client.rgw', '-f'], 'rgw.out')
    await untilReady(gateway, this.#path('rgw.out'), startTimeoutMs, () => answers(this.#options.gatewayPort))
    return gateway
  }

  async createUser({ accessKeyId, secretAccessKey }: Credentials): Promise<void> {
    await this.#run('radosgw-admin', ['user', 'create', '--uid=test', '--display-name=test', `--access-key=${accessKeyId}`, `--secret-key=${secretAccessKey}`])
  }

  #path(name: string): string {
    return join(this.#options.dir, name)
  }

  /** Empty while the file is not there. */
  #read(name: string): Promise<string> {
    return readFile(this.#path(name), 'utf8').catch(() => '')
  }

  #run(program: string, args: readonly string[]): Promise<string> {
    return runCommand(this.#binaries.command(program), args, { env: this.#env })
  }

  async #start(program: string, args: readonly string[], log: string): Promise<Child> {
    const child = await startChild({ command: this.#binaries.command(program), args, env: this.#env, logPath: this.#path(log) })
    this.#processes.push(child)
    return child
  }
}

async function answers(port: number): Promise<boolean> {
  try {
    await rawExchange(port, 'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n', { until: /^HTTP\/1.1 200/, timeoutMs: 2000 })
    return true
  } catch {
    // refused or mute: not yet
    return false
  }
}
