import { type DestinationStream, type Logger, pino } from 'pino'

/** Lines that wait for a slow reader of the log beyond this are dropped: a full pipe must not fill the memory. Bytes. */
const MAX_BUFFERED_BYTES = 16 * 1024 * 1024
/** Lines are written in blocks of this size, or when they are this old. */
const BLOCK_BYTES = 4096
const FLUSH_INTERVAL_MS = 200

/** Where log lines go: `write` gets one or more whole lines. */
export interface LogDestination {
  write(lines: string): void
}

/** The server's log: one JSON object per line. */
export interface ServerLog {
  readonly logger: Logger
  /** Writes what is buffered. Never throws. */
  flush(): void
}

/** A log to `destination`, or to standard output, without ever waiting for it. */
export function createLog(level: string, destination?: LogDestination): ServerLog {
  const target = destination === undefined ? standardOutput() : undefined
  const logger = pino({ level, base: null, formatters: { level: (label) => ({ level: label }) } }, (target ?? destination) as DestinationStream)
  return {
    logger,
    flush() {
      try {
        target?.flushSync()
      } catch {
        // Standard output was closed by its reader: there is nowhere left to say so.
      }
    }
  }
}

function standardOutput() {
  const stream = pino.destination({ dest: 1, sync: false, minLength: BLOCK_BYTES, maxLength: MAX_BUFFERED_BYTES, periodicFlush: FLUSH_INTERVAL_MS })
  // EPIPE and the like: losing the log must not end the process.
  stream.on('error', () => {})
  return stream
}

/** Message and code of an error and of what caused it, with secrets masked; no stack, which would hold nothing for an operator. */
export function describeError(error: unknown, mask: (text: string) => string): { code?: string; message: string; cause?: string } {
  if (!(error instanceof Error)) return { message: mask(String(error)) }
  const { code } = error as { code?: unknown }
  const { cause } = error
  return {
    ...(typeof code === 'string' && { code }),
    message: mask(error.message),
    ...(cause instanceof Error && cause.message !== error.message && { cause: mask(cause.message) })
  }
}
