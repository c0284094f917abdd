import { type Document, isAlias, isCollection, isMap, isPair, isScalar, isSeq, LineCounter, type Node, Pair, parseDocument, Scalar, visit } from 'yaml'
import { ConfigError, type ConfigIssue, type KeyPath } from './errors.ts'

/** A parsed file, and where in it things stand. */
export interface ParsedFile {
  readonly value: unknown
  /** `name:line:column` of what lies at `path`, or of the nearest thing around it, and how many parts of the path were found. */
  locate(path: KeyPath, atKey: boolean): { readonly place: string; readonly depth: number }
}

/**
 * Parses YAML 1.2 (so JSON too), replacing `${NAME}` in values by environment variables; `$${` stands for `${`. A plain (unquoted) value that is one
 * variable as a whole counts as a number or as true/false where it looks like one; a quoted one stays text.
 * Throws `ConfigError` naming the line for bad syntax and for variables that are not set. Messages never hold values.
 */
export function parseYaml(text: string, name: string, env: Readonly<Record<string, string | undefined>>): ParsedFile {
  const lineCounter = new LineCounter()
  const document = parseDocument(text, { lineCounter, prettyErrors: false, uniqueKeys: true, stringKeys: true })
  const at = (offset: number): string => {
    const { line, col } = lineCounter.linePos(offset)
    return `${name}:${line}:${col}`
  }
  if (document.errors.length > 0) {
    const issues = document.errors.map((error) => ({ path: [], message: `bad YAML: ${withoutExcerpt(error.message)}`, place: at(error.pos[0]) }))
    throw placedError(issues)
  }

  const unset: (ConfigIssue & { place: string })[] = []
  visit(document, {
    Alias(_, node, ancestors) {
      if (node.resolve(document) === undefined) unset.push({ path: pathTo(ancestors, node), message: 'there is no anchor of this name', place: at(node.range?.[0] ?? 0) })
    },
    Scalar(key, node, ancestors) {
      // The validator would drop it in silence.
      if (key === 'key' && node.value === '__proto__') unset.push({ path: [...pathTo(ancestors, node)], message: 'unknown key', place: at(node.range?.[0] ?? 0) })
      if (key === 'key' || typeof node.value !== 'string' || !node.value.includes('${')) return
      node.value = substitute(node.value, node.type === Scalar.PLAIN, env, (message) => unset.push({ path: pathTo(ancestors, node), message, place: at(node.range?.[0] ?? 0) }))
    }
  })
  if (unset.length > 0) throw placedError(unset)

  return {
    value: plainData(document, name),
    locate(path, atKey) {
      let node: unknown = document.contents
      let offset = (node as Node | null)?.range?.[0] ?? 0
      let depth = 0
      for (const part of path) {
        if (isAlias(node)) node = node.resolve(document)
        let keyOffset: number | undefined
        if (isMap(node)) {
          const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === String(part))
          if (pair === undefined) break
          keyOffset = (pair.key as Scalar).range?.[0]
          node = pair.value
        } else if (isSeq(node) && typeof part === 'number' && part < node.items.length) node = node.items[part]
        else break
        depth++
        const valueOffset = isEmpty(node) ? undefined : (node as Node).range?.[0]
        const last = depth === path.length
        // A mapping or list is named by its key: its own start may be lines below.
        offset = (last && !atKey && !isCollection(node) ? (valueOffset ?? keyOffset) : (keyOffset ?? valueOffset)) ?? offset
      }
      return { place: at(offset), depth }
    }
  }
}

function plainData(document: Document, name: string): unknown {
  try {
    return document.toJS() as unknown
  } catch (error) {
    // A file of a few lines whose aliases would grow into gigabytes.
    throw new ConfigError([{ path: [], message: 'bad YAML: too many aliases' }], () => name, error)
  }
}

function isEmpty(node: unknown): boolean {
  return node === null || node === undefined || (isScalar(node) && node.value === null)
}

/** `Unexpected token: "…"` would repeat what may be a secret. */
function withoutExcerpt(message: string): string {
  return message.split('\n')[0]?.replace(/: ".*$/s, '') ?? 'syntax error'
}

function placedError(issues: readonly (ConfigIssue & { readonly place: string })[]): ConfigError {
  let next = 0
  return new ConfigError(issues, () => issues[next++]?.place)
}

function substitute(text: string, plain: boolean, env: Readonly<Record<string, string | undefined>>, report: (message: string) => void): unknown {
  const result = text.replace(/\$\$\{|\$\{([^}]*)\}?/g, (match: string, variable: string | undefined) => {
    if (match === '$${') return '${'
    if (variable === undefined || !match.endsWith('}') || !/^[A-Za-z_]\w*$/.test(variable)) {
      report('a dollar sign and an opening brace are not followed by the name of an environment variable and a closing brace; write two dollar signs where text is meant')
      return ''
    }
    const value = env[variable]
    if (value === undefined) report(`the environment variable ${variable} is not set`)
    return value ?? ''
  })
  if (!plain || !/^\$\{\w+\}$/.test(text)) return result
  if (/^(?:0|-?[1-9]\d{0,14})$/.test(result)) return Number(result)
  return result === 'true' ? true : result === 'false' ? false : result
}

/** Keys and indexes that lead to `node`, from what the visitor says lies around it. */
function pathTo(ancestors: readonly unknown[], node: unknown): KeyPath {
  const path: (string | number)[] = []
  for (const [index, ancestor] of ancestors.entries()) {
    const child = ancestors[index + 1] ?? node
    if (isPair(ancestor) && ancestor instanceof Pair) path.push(String((ancestor.key as Scalar).value))
    else if (isSeq(ancestor)) path.push(ancestor.items.indexOf(child))
  }
  return path
}
