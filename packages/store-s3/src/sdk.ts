import { Agent as HttpAgent } from 'node:http'
import { Agent as HttpsAgent } from 'node:https'
import type { S3Client } from '@aws-sdk/client-s3'
import type { ResolvedOptions } from './options.ts'

type Commands = typeof import('@aws-sdk/client-s3')

/** The AWS SDK with a client for reads and one for writes: each has connections of its own, so that slow uploads never take those that hits need. */
export interface Sdk {
  readonly commands: Commands
  readonly reads: S3Client
  readonly writes: S3Client
}

const silent = { trace() {}, debug() {}, info() {}, warn() {}, error() {} }

/** Loads the SDK, which takes some 200 to 400 ms of CPU, and makes the clients. Connects to nothing. */
export async function loadSdk(options: ResolvedOptions): Promise<Sdk> {
  const [commands, { NodeHttpHandler }] = await Promise.all([import('@aws-sdk/client-s3'), import('@smithy/node-http-handler')])
  const client = (maxSockets: number, requestTimeoutMs: number): S3Client => {
    const agent = { keepAlive: true, maxSockets, maxFreeSockets: Math.min(maxSockets, 32), timeout: 60_000, scheduling: 'lifo' } as const
    return new commands.S3Client({
      ...(options.endpoint !== undefined && { endpoint: options.endpoint }),
      ...(options.region !== undefined && { region: options.region }),
      ...(options.credentials !== undefined && { credentials: options.credentials }),
      forcePathStyle: options.forcePathStyle,
      requestChecksumCalculation: options.requestChecksumCalculation,
      responseChecksumValidation: options.responseChecksumValidation,
      maxAttempts: options.maxAttempts,
      retryMode: 'standard',
      // It would cost a round trip per part, on a connection outside the agent's bounds.
      expectContinueHeader: false,
      logger: silent,
      requestHandler: new NodeHttpHandler({
        httpAgent: new HttpAgent(agent),
        httpsAgent: new HttpsAgent(agent),
        connectionTimeout: options.connectTimeoutMs,
        requestTimeout: requestTimeoutMs,
        throwOnRequestTimeout: true,
        // Silence is watched where it is known whether the reader or the server causes it.
        socketTimeout: 0,
        logger: silent
      })
    })
  }
  // Reads have deadlines of their own, which cover waiting for a connection and the body too.
  const reads = client(options.maxReadConnections, 0)
  const writes = client(options.maxWriteConnections + options.sweepConcurrency + 2, options.requestTimeoutMs)
  writes.middlewareStack.add(
    (next) => (args) => {
      const request = args.request as { protocol?: string; body?: unknown; headers?: Record<string, string> }
      // Over TLS a signature of the body adds nothing to the blocks' checksums, and costs 0.6 ms of CPU per MiB.
      if (request.protocol === 'https:' && request.body !== undefined && request.headers !== undefined) request.headers['x-amz-content-sha256'] ??= 'UNSIGNED-PAYLOAD'
      return next(args)
    },
    { step: 'build', name: 'unsignedPayload' }
  )
  return { commands, reads, writes }
}
