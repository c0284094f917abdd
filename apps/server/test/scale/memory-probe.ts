// Loaded into the server's process by --import, with --expose-gc: tells what memory it takes, when asked by IPC.

export interface MemoryReading {
  /** What is reachable: of the heap, and outside of it (buffers are part of `external`). Bytes. */
  readonly heapUsed: number
  readonly external: number
  readonly arrayBuffers: number
  readonly rss: number
  /** The most that the process has had so far. Bytes. */
  readonly maxRss: number
}

process.on('message', ({ collect }: { collect: boolean }) => {
  if (collect) (globalThis as { gc?: () => void }).gc?.()
  const { heapUsed, external, arrayBuffers, rss } = process.memoryUsage()
  const reading: MemoryReading = { heapUsed, external, arrayBuffers, rss, maxRss: process.resourceUsage().maxRSS * 1024 }
  process.send?.(reading)
})
// It must not keep the server alive.
process.channel?.unref()
