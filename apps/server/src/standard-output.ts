import { fstatSync, write, writeSync } from 'node:fs'

/** Lines are written in blocks of this size, or when they are this old: a write is a thread's work, and costs as much as the lines of a dozen requests. */
const BLOCK_BYTES = 64 * 1024
const FLUSH_INTERVAL_MS = 200
/** Lines that wait for a slow reader beyond this are dropped: a full pipe must not fill the memory. */
const MAX_BUFFERED_BYTES = 16 * 1024 * 1024
/** How long to leave a reader alone that took nothing. */
const RETRY_MS = 50

/**
 * Lines for a file descriptor, in order, without ever waiting for who reads them: what a pipe does not take is tried again, what it can no longer take is
 * lost. Nothing here keeps the process alive or from ending.
 */
export class LineOutput {
  private readonly fd: number
  private pending: Buffer[] = []
  private pendingBytes = 0
  /** Lines that are not yet a block. */
  private lines = ''
  private writing = false
  private timer: NodeJS.Timeout | undefined
  private readonly idle: (() => void)[] = []

  constructor(fd: number) {
    this.fd = fd
  }

  /** One or more whole lines. */
  write(lines: string): void {
    if (this.pendingBytes + this.lines.length + lines.length > MAX_BUFFERED_BYTES) return
    this.lines += lines
    if (this.lines.length >= BLOCK_BYTES) {
      this.cutBlock()
      if (this.pending.length === 1) this.writeNext()
    } else this.timer ??= setTimeout(() => this.onTimer(), FLUSH_INTERVAL_MS).unref()
  }

  /** Resolves when everything is written or lost, after `timeoutMs` at the latest. */
  flush(timeoutMs: number): Promise<void> {
    this.cutBlock()
    if (this.pending.length === 0) return Promise.resolve()
    return new Promise((resolve) => {
      const giveUp = setTimeout(resolve, timeoutMs)
      this.idle.push(() => {
        clearTimeout(giveUp)
        resolve()
      })
      this.writeNext()
    })
  }

  /** For the last moment of the process: what can be written at once is. */
  flushNow(): void {
    this.cutBlock()
    // What is under way would be overtaken.
    if (this.writing) return
    try {
      for (let block = this.pending[0]; block !== undefined; block = this.pending[0]) this.written(writeSync(this.fd, block))
    } catch {
      // Nobody reads, or nobody is left: there is nowhere to say so.
    }
  }

  private onTimer(): void {
    this.timer = undefined
    this.cutBlock()
    this.writeNext()
  }

  private cutBlock(): void {
    if (this.lines === '') return
    const block = Buffer.from(this.lines)
    this.lines = ''
    this.pending.push(block)
    this.pendingBytes += block.length
  }

  private writeNext(): void {
    const block = this.pending[0]
    if (block === undefined) {
      for (const resolve of this.idle.splice(0)) resolve()
      return
    }
    if (this.writing) return
    this.writing = true
    write(this.fd, block, (error, bytes) => {
      this.writing = false
      if (error?.code === 'EAGAIN') {
        this.timer ??= setTimeout(() => this.onTimer(), RETRY_MS).unref()
        return
      }
      // Any other error (the reader has left, the disk is full) loses this block; the next may fare better, as where a reader comes back to a named pipe.
      this.written(error ? block.length : bytes)
      this.writeNext()
    })
  }

  private written(bytes: number): void {
    const block = this.pending[0] as Buffer
    this.pendingBytes -= bytes
    if (bytes < block.length) this.pending[0] = block.subarray(bytes)
    else this.pending.shift()
  }
}

let output: LineOutput | undefined

/** The one standard output of this process. */
export function standardOutput(): LineOutput {
  if (output === undefined) {
    output = new LineOutput(1)
    // Writing to a pipe must not block: at its end the process would wait for a write that nobody reads. Node makes it so when it opens the stream.
    if (isPipe(1)) process.stdout.on('error', () => {})
    process.on('exit', () => output?.flushNow())
  }
  return output
}

function isPipe(fd: number): boolean {
  try {
    const stats = fstatSync(fd)
    return stats.isFIFO() || stats.isSocket()
  } catch {
    // It was closed before this process began.
    return false
  }
}
