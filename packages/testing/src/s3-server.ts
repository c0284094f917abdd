import { randomBytes } from 'node:crypto'
import { startCeph } from './ceph-cluster.ts'
import { createBucket, type S3Access } from './sigv4.ts'

/** An S3 server that other tests use too: make buckets of your own. Addressed by path (`endpoint/bucket/key`). */
export interface S3Service extends S3Access {
  /** Does nothing if the bucket is there. */
  createBucket(name: string): Promise<void>
}

export interface S3Server extends S3Service {
  readonly port: number
  /** Of the process that speaks S3. */
  readonly pid: number
  /** SIGSTOP: connections are accepted by the kernel and stay open, nothing is answered. */
  freeze(): void
  /** SIGCONT: what was asked meanwhile is answered. */
  thaw(): void
  /** SIGKILL: connections are reset and new ones refused. Resolves when the process is gone. */
  kill(): Promise<void>
  /** Ends all processes of the server and removes its data. May be called more than once. */
  stop(): Promise<void>
}

/**
 * Starts an S3 server of its own for a test: Ceph radosgw over an in-memory store, on a free port of 127.0.0.1, with one user.
 * Takes about a second and 200 MB. Rejects if there is no radosgw and none can be unpacked.
 */
export async function startS3(): Promise<S3Server> {
  const user = { accessKeyId: randomBytes(10).toString('hex').toUpperCase(), secretAccessKey: randomBytes(20).toString('hex') }
  const cluster = await startCeph(user)
  const access: S3Access = { endpoint: `http://127.0.0.1:${cluster.gatewayPort}`, region: 'us-east-1', ...user }
  return {
    ...s3Service(access),
    port: cluster.gatewayPort,
    pid: cluster.gateway.pid,
    freeze: () => cluster.gateway.signal('SIGSTOP'),
    thaw: () => cluster.gateway.signal('SIGCONT'),
    kill: () => cluster.gateway.kill(),
    stop: () => cluster.stop()
  }
}

export function s3Service(access: S3Access): S3Service {
  return { ...access, createBucket: (name) => createBucket(access, name) }
}
