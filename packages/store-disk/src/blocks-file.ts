import { BLOCK_BYTES, BLOCK_OVERHEAD_BYTES, decodeBlock, framedLength } from '@proxy/cache/blocks'
import { DiskError } from './errors.ts'
import type { DiskFile } from './io.ts'
import type { FileHead } from './layout.ts'

/** Of a file's head, what its blocks are read with. */
type BlockHead = Pick<FileHead, 'version' | 'length' | 'bodyStart'>

const FRAME_BYTES = BLOCK_BYTES + BLOCK_OVERHEAD_BYTES

/** Blocks that one read brings: few enough for a slow reader to hold, enough for a fast one. */
const BLOCKS_PER_READ = 4

/** The verified blocks in `frames`, which begins at block `first` and ends at a block's end. Throws DISK_BROKEN. */
export function verifyBlocks(frames: Buffer, head: BlockHead, first: number): Buffer[] {
  const blocks: Buffer[] = []
  for (let at = 0; at < frames.byteLength; at += FRAME_BYTES) {
    const bytes = decodeBlock(head.version, first + blocks.length, frames.subarray(at, Math.min(frames.byteLength, at + FRAME_BYTES)))
    if (bytes === undefined) throw new DiskError('broken')
    blocks.push(bytes)
  }
  return blocks
}

/** The part of a body from one offset to another, read block by block and verified. */
export class BlockCursor {
  private readonly file: DiskFile
  private readonly head: BlockHead
  private next: number
  private readonly end: number

  /** `end` exclusive. */
  constructor(file: DiskFile, head: BlockHead, start: number, end: number) {
    this.file = file
    this.head = head
    this.next = start
    this.end = end
  }

  get remaining(): number {
    return this.end - this.next
  }

  /** The next bytes, from `maxBlocks` blocks at most, in pieces of one. Rejects with DISK_BROKEN, or what the system says. */
  async read(maxBlocks = BLOCKS_PER_READ): Promise<Buffer[]> {
    const { file, head, next, end } = this
    const first = Math.floor(next / BLOCK_BYTES)
    const last = Math.min(Math.floor((end - 1) / BLOCK_BYTES), first + maxBlocks - 1)
    const from = first * FRAME_BYTES
    const frames = Buffer.allocUnsafeSlow(Math.min(framedLength(head.length), (last + 1) * FRAME_BYTES) - from)
    if ((await file.read(frames, head.bodyStart + from)) < frames.byteLength) throw new DiskError('broken')
    const blocks = verifyBlocks(frames, head, first)
    const wholeEnd = Math.min(head.length, (last + 1) * BLOCK_BYTES)
    if (wholeEnd > end) blocks.push((blocks.pop() as Buffer).subarray(0, end - last * BLOCK_BYTES))
    const skip = next - first * BLOCK_BYTES
    if (skip > 0) blocks[0] = (blocks[0] as Buffer).subarray(skip)
    this.next = Math.min(end, wholeEnd)
    return blocks
  }
}
