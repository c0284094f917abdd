import { readFile } from 'node:fs/promises'
import { balance, createBalancer } from '@proxy/balancer'
import type { Handler } from '@proxy/pipeline'
import { upstream } from '@proxy/upstream'
import { ConfigError, checked, type KeyPath } from './config/errors.ts'
import type { PoolSettings } from './config/schema-pool.ts'

/** A pool of targets as the innermost handler of every route to it. */
export interface Pool {
  readonly handler: Handler
  close(): Promise<void>
}

/** Throws `ConfigError` when a file it names cannot be read. */
export async function openPool(name: string, settings: PoolSettings): Promise<Pool> {
  const { targets, strategy, retries, timeouts, requestHeaders, passiveHealth, tls } = settings
  const balancer = createBalancer({
    targets: targets.map(({ url, weight, name }) => ({ origin: url, weight, ...(name !== undefined && { name }) })),
    strategy,
    passiveHealth: passiveHealth === false ? false : { maxFails: passiveHealth.maxFails, failTimeoutMs: passiveHealth.failTimeout }
  })
  const ca = tls.ca === undefined ? undefined : await readPem(['pools', name, 'tls', 'ca'], tls.ca)
  const send = checkedPool(name, () =>
    upstream({
      connectTimeoutMs: timeouts.connect,
      headersTimeoutMs: timeouts.headers,
      bodyTimeoutMs: timeouts.body,
      connections: settings.connections,
      keepAliveMs: settings.keepAlive,
      tls: { rejectUnauthorized: tls.verify, ...(ca !== undefined && { ca }), ...(tls.serverName !== undefined && { servername: tls.serverName }) },
      requestHeaders,
      clientHeaders: settings.forwardClientHeaders ? 'forward' : 'none',
      xForwarded: settings.xForwarded,
      requestIdHeader: 'x-request-id'
    })
  )
  return { handler: balance({ balancer, retries })(send), close: () => send.close() }
}

/** As `checked`, with the key of the certificates where it is they that cannot be used. */
function checkedPool<T>(name: string, make: () => T): T {
  return checked(['pools', name], () => {
    try {
      return make()
    } catch (error) {
      const [, complaint] = error instanceof TypeError ? (/^tls\.ca (.*)$/s.exec(error.message) ?? []) : []
      if (complaint === undefined) throw error
      throw new ConfigError([{ path: ['pools', name, 'tls', 'ca'], message: complaint }], undefined, error)
    }
  })
}

/** A file that the configuration names, or a `ConfigError` at its key. */
export async function readPem(path: KeyPath, file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    throw new ConfigError([{ path, message: code === 'ENOENT' ? `there is no file ${file}` : `${file} cannot be read: ${code ?? message}` }], undefined, error)
  }
}
