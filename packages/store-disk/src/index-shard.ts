/** Numbers of 32 bits that one entry takes. */
export const ENTRY_WORDS = 6
const ID_WORDS = 4
const STAMP = 4
const BLOCKS = 5

/** An entry's name as four numbers: without an object per entry a million of them take some 40 MB. */
export type Id = readonly [number, number, number, number]

export function idWords(hex: string): Id {
  return [Number.parseInt(hex.slice(0, 8), 16), Number.parseInt(hex.slice(8, 16), 16), Number.parseInt(hex.slice(16, 24), 16), Number.parseInt(hex.slice(24, 32), 16)]
}

export function idHex(words: Uint32Array, at: number): string {
  let hex = ''
  for (let i = 0; i < ID_WORDS; i++) hex += (words[at + i] as number).toString(16).padStart(8, '0')
  return hex
}

/**
 * One part of the index: entries side by side in one array, found by a table of their places (open addressing, linear probing, at most half full).
 * An entry is `id (4 words) | stamp of last use | blocks`. It grows by doubling, which for a few thousand entries is a matter of microseconds.
 */
export class IndexShard {
  count = 0
  words = new Uint32Array(8 * ENTRY_WORDS)
  /** Place of an entry plus 1; 0 for none. */
  private table = new Int32Array(16)

  /** Place of an entry, or -1. */
  find(id: Id): number {
    const { table, words } = this
    const mask = table.length - 1
    for (let slot = id[1] & mask; ; slot = (slot + 1) & mask) {
      const place = (table[slot] as number) - 1
      if (place < 0) return -1
      const at = place * ENTRY_WORDS
      if (words[at] === id[0] && words[at + 1] === id[1] && words[at + 2] === id[2] && words[at + 3] === id[3]) return place
    }
  }

  blocksAt(place: number): number {
    return this.words[place * ENTRY_WORDS + BLOCKS] as number
  }

  stampAt(place: number): number {
    return this.words[place * ENTRY_WORDS + STAMP] as number
  }

  setStamp(place: number, stamp: number): void {
    this.words[place * ENTRY_WORDS + STAMP] = stamp
  }

  setBlocks(place: number, blocks: number): void {
    this.words[place * ENTRY_WORDS + BLOCKS] = blocks
  }

  /** Adds an entry that is not there. */
  add(id: Id, stamp: number, blocks: number): void {
    const place = this.count++
    const at = place * ENTRY_WORDS
    if (at === this.words.length) this.grow()
    const { words } = this
    for (let i = 0; i < ID_WORDS; i++) words[at + i] = id[i] as number
    words[at + STAMP] = stamp
    words[at + BLOCKS] = blocks
    this.list(place)
  }

  /** Removes the entry at `place`; the last one moves there. */
  removeAt(place: number): void {
    this.unlist(place)
    const last = --this.count
    if (place === last) return
    this.unlist(last)
    this.words.copyWithin(place * ENTRY_WORDS, last * ENTRY_WORDS, (last + 1) * ENTRY_WORDS)
    this.list(place)
  }

  /** The entries as they lie in memory. */
  copy(): Uint32Array {
    return this.words.slice(0, this.count * ENTRY_WORDS)
  }

  private grow(): void {
    const words = new Uint32Array(this.words.length * 2)
    words.set(this.words)
    this.words = words
    this.table = new Int32Array(this.table.length * 2)
    for (let place = 0; place < this.count - 1; place++) this.list(place)
  }

  private list(place: number): void {
    const { table } = this
    const mask = table.length - 1
    let slot = (this.words[place * ENTRY_WORDS + 1] as number) & mask
    while (table[slot] !== 0) slot = (slot + 1) & mask
    table[slot] = place + 1
  }

  /** Takes a place out of the table and moves up those that it had pushed on (Knuth, volume 3, section 6.4, algorithm R). */
  private unlist(place: number): void {
    const { table, words } = this
    const mask = table.length - 1
    let hole = (words[place * ENTRY_WORDS + 1] as number) & mask
    while (table[hole] !== place + 1) hole = (hole + 1) & mask
    for (let slot = (hole + 1) & mask; table[slot] !== 0; slot = (slot + 1) & mask) {
      const home = (words[((table[slot] as number) - 1) * ENTRY_WORDS + 1] as number) & mask
      if (((slot - home) & mask) < ((slot - hole) & mask)) continue
      table[hole] = table[slot] as number
      hole = slot
    }
    table[hole] = 0
  }
}
