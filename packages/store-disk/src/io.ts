import { close, fdatasync, fstat, link, mkdir, open, read, readdir, rename, type Stats, stat, unlink, utimes, write } from 'node:fs'
import { DiskError, isAbsent, systemCode } from './errors.ts'

type Done<T> = (error: NodeJS.ErrnoException | null, value?: T) => void
/** `read`: somebody waits for it. `write`: everything else; takes one thread less at most, so that reads always find one. */
export type Lane = 'read' | 'write'

const noFolders: ReadonlySet<string> = new Set(['EISDIR', 'EINVAL', 'ENOTSUP', ...(process.platform === 'win32' ? ['EPERM', 'EACCES'] : [])])

/** File operations, a bounded number of them in libuv's thread pool at a time and a bounded number waiting. Rejects with the system's errors, or `DISK_BUSY`. */
export class DiskIo {
  bytesRead = 0
  private readonly maxActive: number
  private readonly maxQueued: number
  private active = 0
  private activeWrites = 0
  private readonly reads: (() => void)[] = []
  private readonly writes: (() => void)[] = []

  constructor(maxActive: number, maxQueued: number) {
    this.maxActive = maxActive
    this.maxQueued = maxQueued
  }

  open(path: string, flags: string, lane: Lane): Promise<DiskFile> {
    return this.run<number>(lane, (done) => open(path, flags, 0o600, done)).then((fd) => new DiskFile(this, fd, lane))
  }

  /** A new file, in a folder that is made where it is missing. */
  openNew(path: string, folder: string): Promise<DiskFile> {
    return this.inFolder(folder, () => this.open(path, 'wx+', 'write'))
  }

  /** Does something in a folder, and again once that has been made, where it was missing. */
  async inFolder<T>(folder: string, act: () => Promise<T>): Promise<T> {
    try {
      return await act()
    } catch (error) {
      if (!isAbsent(error)) throw error
      await this.mkdir(folder)
      return act()
    }
  }

  /** Both names must be on one file system. */
  rename(from: string, to: string): Promise<void> {
    return this.run('write', (done) => rename(from, to, done))
  }

  link(from: string, to: string): Promise<void> {
    return this.run('write', (done) => link(from, to, done))
  }

  unlink(path: string): Promise<void> {
    return this.run('write', (done) => unlink(path, done))
  }

  /** With all folders above it; does nothing where it is there. */
  mkdir(path: string): Promise<void> {
    return this.run<string | undefined>('write', (done) => mkdir(path, { recursive: true, mode: 0o700 }, done)).then(() => {})
  }

  stat(path: string, lane: Lane = 'write'): Promise<Stats> {
    return this.run(lane, (done) => stat(path, done))
  }

  readdir(path: string): Promise<string[]> {
    return this.run('write', (done) => readdir(path, done))
  }

  /** Has the names in a folder on the device, where the system can tell. */
  async syncFolder(path: string): Promise<void> {
    let folder: DiskFile | undefined
    try {
      folder = await this.open(path, 'r', 'read')
      await folder.sync()
    } catch (error) {
      // Some systems open no folders, or flush none.
      if (!noFolders.has(systemCode(error) ?? '')) throw error
    } finally {
      folder?.close()
    }
  }

  setModified(path: string, wallMs: number): Promise<void> {
    return this.run('write', (done) => utimes(path, wallMs / 1000, wallMs / 1000, done))
  }

  run<T>(lane: Lane, start: (done: Done<T>) => void): Promise<T> {
    const queue = lane === 'read' ? this.reads : this.writes
    if (queue.length >= this.maxQueued) return Promise.reject(new DiskError('busy'))
    return new Promise<T>((resolve, reject) => {
      queue.push(() => {
        start((error, value) => {
          this.active--
          if (lane === 'write') this.activeWrites--
          this.next()
          if (error) reject(error)
          else resolve(value as T)
        })
      })
      this.next()
    })
  }

  private next(): void {
    while (this.active < this.maxActive) {
      const isRead = this.reads.length > 0
      if (!isRead && this.activeWrites >= Math.max(1, this.maxActive - 1)) return
      const job = isRead ? this.reads.shift() : this.writes.shift()
      if (job === undefined) return
      this.active++
      if (!isRead) this.activeWrites++
      job()
    }
  }
}

/** An open file. It is closed once nothing is under way with it: its number must not pass to another file while a read that hangs still has it. */
export class DiskFile {
  private readonly io: DiskIo
  private readonly fd: number
  private readonly lane: Lane
  private busy = 0
  private holders = 1
  private state: 'open' | 'closing' | 'closed' = 'open'
  /** Told once when it is closed. */
  onClosed: (() => void) | undefined

  constructor(io: DiskIo, fd: number, lane: Lane) {
    this.io = io
    this.fd = fd
    this.lane = lane
  }

  /** Fills `buffer` from `position` on; resolves to fewer bytes only where the file ends. */
  async read(buffer: Uint8Array, position: number): Promise<number> {
    let filled = 0
    while (filled < buffer.byteLength) {
      const got = await this.run<number>((done) => read(this.fd, buffer, filled, buffer.byteLength - filled, position + filled, done))
      if (got === 0) break
      filled += got
    }
    this.io.bytesRead += filled
    return filled
  }

  async write(bytes: Uint8Array, position: number): Promise<void> {
    let written = 0
    while (written < bytes.byteLength) {
      written += await this.run<number>((done) => write(this.fd, bytes, written, bytes.byteLength - written, position + written, done))
    }
  }

  stat(): Promise<Stats> {
    return this.run((done) => fstat(this.fd, done))
  }

  sync(): Promise<void> {
    return this.run((done) => fdatasync(this.fd, done))
  }

  /** One more `close` is needed from now on; false when it is too late. */
  retain(): boolean {
    if (this.state !== 'open') return false
    this.holders++
    return true
  }

  /** Called once by whoever opened it, and once for each `retain`. */
  close(): void {
    if (--this.holders > 0 || this.state !== 'open') return
    this.state = 'closing'
    this.closeIdle()
  }

  private run<T>(start: (done: Done<T>) => void): Promise<T> {
    if (this.state !== 'open') return Promise.reject(new DiskError('gone'))
    this.busy++
    const settled = this.io.run(this.lane, start)
    const free = (): void => {
      this.busy--
      this.closeIdle()
    }
    settled.then(free, free)
    return settled
  }

  private closeIdle(): void {
    if (this.state !== 'closing' || this.busy > 0) return
    this.state = 'closed'
    // Past the queue: what frees something must not wait for room. An error here leaves nothing to be done, the number is free either way.
    close(this.fd, () => this.onClosed?.())
  }
}
