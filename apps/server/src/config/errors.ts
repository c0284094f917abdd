import type { z } from 'zod'

/** Keys and indexes from the top of the configuration: `['routes', 0, 'pool']`. */
export type KeyPath = readonly (string | number)[]

export interface ConfigIssue {
  readonly path: KeyPath
  /** What is wrong, for people. Holds no value of a key that may be secret. */
  readonly message: string
  /** Set where it is the key that is wrong, not its value. */
  readonly atKey?: boolean
}

/** A configuration that cannot be used. `message` has one line per issue, each with the place where known and the path of the key. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly issues: readonly ConfigIssue[]

  /** `place` says where a key was written: `proxy.yaml:12:5`. */
  constructor(issues: readonly ConfigIssue[], place?: (path: KeyPath, atKey: boolean) => string | undefined, cause?: unknown) {
    super(issues.map((issue) => describe(issue, place)).join('\n'), cause === undefined ? undefined : { cause })
    this.issues = issues
  }
}

function describe({ path, message, atKey = false }: ConfigIssue, place: ((path: KeyPath, atKey: boolean) => string | undefined) | undefined): string {
  const where = place?.(path, atKey) ?? 'configuration'
  return path.length === 0 ? `${where}: ${message}` : `${where}: ${formatPath(path)}: ${message}`
}

/** `routes[0].match.path`; keys that are no identifiers are quoted. */
export function formatPath(path: KeyPath): string {
  let text = ''
  for (const part of path) {
    if (typeof part === 'number') text += `[${part}]`
    else if (/^[\w-]+$/.test(part)) text += text === '' ? part : `.${part}`
    else text += `[${JSON.stringify(part)}]`
  }
  return text
}

/** Runs `make`, whose TypeError or RangeError says that the setting at `path` cannot be meant. */
export function checked<T>(path: KeyPath, make: () => T): T {
  try {
    return make()
  } catch (error) {
    if (error instanceof TypeError || error instanceof RangeError) throw new ConfigError([{ path, message: error.message }], undefined, error)
    throw error
  }
}

const typeNames: Readonly<Record<string, string>> = {
  string: 'text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a mapping',
  record: 'a mapping'
}

/** What the validator found, in this project's words. `input` is what was validated; `suggest` may name the key that was meant. */
export function toIssues(error: z.core.$ZodError, input: unknown, suggest: (path: KeyPath, key: string) => string | undefined): ConfigIssue[] {
  const issues: ConfigIssue[] = []
  for (const issue of error.issues) collect(issue, [], issues, input, suggest)
  return issues
}

function collect(issue: z.core.$ZodIssue, base: KeyPath, into: ConfigIssue[], input: unknown, suggest: (path: KeyPath, key: string) => string | undefined): void {
  const path: KeyPath = [...base, ...(issue.path as (string | number)[])]
  switch (issue.code) {
    case 'unrecognized_keys':
      for (const key of issue.keys) {
        const meant = suggest(path, key)
        into.push({ path: [...path, key], message: meant === undefined ? 'unknown key' : `unknown key; did you mean "${meant}"?`, atKey: true })
      }
      return
    case 'invalid_union': {
      const { options } = issue as { readonly options?: readonly unknown[] }
      if (options !== undefined) {
        // The key that tells the shapes apart.
        const wanted = alternatives(options.map((value) => JSON.stringify(value)))
        into.push({ path, message: valueAt(input, path) === undefined ? `is missing: ${wanted} is wanted` : `must be ${wanted}` })
        return
      }
      const branch = closestBranch(issue.errors)
      for (const inner of branch) collect(inner, path, into, input, suggest)
      if (branch.length === 0) into.push({ path, message: issue.message })
      return
    }
    case 'invalid_key':
    case 'invalid_element':
      for (const inner of issue.issues) into.push({ path, message: inner.message, atKey: issue.code === 'invalid_key' })
      return
    case 'invalid_type': {
      const value = valueAt(input, path)
      if (value === undefined) into.push({ path, message: `is missing: ${typeNames[issue.expected] ?? issue.expected} is wanted` })
      else if (typeof value === 'number' && !Number.isFinite(value)) into.push({ path, message: 'must be a finite number' })
      else into.push({ path, message: issue.message.startsWith('Invalid input') ? `must be ${typeNames[issue.expected] ?? issue.expected}, not ${nameOf(value)}` : issue.message })
      return
    }
    case 'invalid_value':
      into.push({ path, message: `must be ${alternatives(issue.values.map((value) => JSON.stringify(value)))}` })
      return
    case 'too_small':
      into.push({ path, message: tooSmall(issue) })
      return
    case 'too_big':
      into.push({ path, message: `must be at most ${issue.maximum}` })
      return
    default:
      into.push({ path, message: issue.message })
  }
}

function tooSmall({ origin, minimum, inclusive }: z.core.$ZodIssueTooSmall): string {
  if (origin === 'array') return `needs at least ${minimum} ${minimum === 1 ? 'entry' : 'entries'}`
  if (origin === 'string') return 'must not be empty'
  return `must be ${inclusive === false ? 'above' : 'at least'} ${minimum}`
}

/** Of several allowed shapes, the one that was meant: the one whose complaints lie deepest, or are not about the type as a whole. */
function closestBranch(branches: readonly (readonly z.core.$ZodIssue[])[]): readonly z.core.$ZodIssue[] {
  const mismatched = (branch: readonly z.core.$ZodIssue[]): boolean => branch.some((issue) => issue.path.length === 0 && (issue.code === 'invalid_type' || issue.code === 'invalid_value'))
  return branches.find((branch) => !mismatched(branch)) ?? branches.find((branch) => branch.some((issue) => issue.code === 'invalid_value')) ?? branches[0] ?? []
}

export function alternatives(values: readonly string[]): string {
  return values.length < 2 ? values.join('') : `${values.slice(0, -1).join(', ')} or ${values.at(-1) as string}`
}

function valueAt(input: unknown, path: KeyPath): unknown {
  let value = input
  for (const part of path) value = typeof value === 'object' && value !== null ? (value as Record<string | number, unknown>)[part] : undefined
  return value
}

/** What kind of plain value it is, for people. */
export function nameOf(value: unknown): string {
  if (value === null) return 'nothing'
  if (Array.isArray(value)) return 'a list'
  return typeof value === 'number' && Number.isFinite(value) && !Number.isInteger(value) ? 'a fraction' : (typeNames[typeof value] ?? typeof value)
}
