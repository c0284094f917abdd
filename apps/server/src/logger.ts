import { type DestinationStream, type Logger, pino } from 'pino'
import { standardOutput } from './standard-output.ts'

/** Longest wait for a reader of the log when the server has ended. */
const LAST_FLUSH_MS = 1000

/** Where log lines go: `write` gets one or more whole lines. */
export interface LogDestination {
  write(lines: string): void
}

/** The server's log: one JSON object per line. */
export interface ServerLog {
  readonly logger: Logger
  /** Writes a whole line beside the logger's, as it is: with its level, and its line feed. */
  readonly writeLine: (line: string) => void
  /** Resolves when what is buffered was written, or cannot be soon. Never rejects. */
  flush(): Promise<void>
}

/** A log to `destination`, or to standard output, without ever waiting for it. */
export function createLog(level: string, destination?: LogDestination): ServerLog {
  const output = destination === undefined ? standardOutput() : undefined
  const target = (output ?? destination) as DestinationStream
  const logger = pino({ level, base: null, formatters: { level: (label) => ({ level: label }) } }, target)
  return { logger, writeLine: (line) => target.write(line), flush: () => output?.flush(LAST_FLUSH_MS) ?? Promise.resolve() }
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
