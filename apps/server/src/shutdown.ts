import type { ProxyServer } from './server.ts'

/** Statuses that the process ends with. */
export const exitStatus = { ok: 0, cut: 1, badInput: 2 } as const

/** How long the process lives on after a second signal, for what was cut to be noticed and written down. */
const LAST_MS = 1000

/**
 * Ends the server in good order at SIGTERM and SIGINT: what is under way is answered, then the process exits with 0 (1 when the grace time was over first and
 * connections were cut). A second signal cuts at once. `after` runs when the server has ended.
 */
export function endOnSignal(server: ProxyServer, after: () => Promise<void> = () => Promise.resolve()): void {
  let signals = 0
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    if (++signals > 1) {
      // The first call goes on waiting for what the cache fetches: not for long any more.
      setTimeout(() => process.exit(exitStatus.cut), LAST_MS).unref()
      await server.close(0)
      return
    }
    server.note('info', `${signal}: finishing what is under way`)
    const cut = await server.close()
    await after()
    process.exit(cut === 0 ? exitStatus.ok : exitStatus.cut)
  }
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      end(signal).catch((error: unknown) => {
        server.note('error', 'ending failed', error)
        process.exit(exitStatus.cut)
      })
    })
  }
}

/** A fault that one request met must not end the service for all others: it is written to the log, with its stack, and the process goes on. */
export function surviveFaults(server: ProxyServer): void {
  process.on('uncaughtException', (error) => server.note('error', `uncaught: ${error.stack ?? error.message}`))
  process.on('unhandledRejection', (reason) => server.note('error', `unhandled rejection: ${reason instanceof Error ? (reason.stack ?? reason.message) : String(reason)}`))
}
