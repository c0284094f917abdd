import type { KeyPath } from './errors.ts'

/** The parts of JSON Schema that say which keys may stand where. */
export interface KeySchema {
  readonly properties?: Readonly<Record<string, KeySchema>>
  readonly additionalProperties?: KeySchema | boolean
  readonly items?: KeySchema
  readonly anyOf?: readonly KeySchema[]
}

/** Names that may stand at `path`, from the schema. */
export function knownKeys(schema: KeySchema, path: KeyPath): string[] {
  let level: readonly KeySchema[] = alternativesOf(schema)
  for (const part of path) level = level.flatMap((branch) => childrenOf(branch, part)).flatMap(alternativesOf)
  return level.flatMap((branch) => Object.keys(branch.properties ?? {}))
}

function alternativesOf(schema: KeySchema): readonly KeySchema[] {
  return schema.anyOf === undefined ? [schema] : schema.anyOf.flatMap(alternativesOf)
}

function childrenOf(schema: KeySchema, part: string | number): KeySchema[] {
  if (typeof part === 'number') return schema.items === undefined ? [] : [schema.items]
  const child = schema.properties?.[part] ?? schema.additionalProperties
  return typeof child === 'object' ? [child] : []
}

/** The candidate that `word` is a misspelling of: at most two edits away (one for words of up to three letters), case aside. */
export function closest(word: string, candidates: readonly string[]): string | undefined {
  let best: string | undefined
  let bestDistance = word.length <= 3 ? 2 : 3
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase())
    if (distance < bestDistance) {
      best = candidate
      bestDistance = distance
    }
  }
  return best
}

/** Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours. */
function editDistance(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 2 || a.length > 64) return Number.POSITIVE_INFINITY
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, column) => column)]
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    const above = rows[i - 1] as number[]
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1]
      let cost = Math.min((above[j] as number) + 1, (row[j - 1] as number) + 1, (above[j - 1] as number) + (same ? 0 : 1))
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) cost = Math.min(cost, (rows[i - 2]?.[j - 2] as number) + 1)
      row[j] = cost
    }
    rows.push(row)
  }
  return (rows[a.length] as number[])[b.length] as number
}
