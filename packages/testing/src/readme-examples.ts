import { readFileSync } from 'node:fs'
import { stripTypeScriptTypes } from 'node:module'

/** The blocks of TypeScript in a README, which are fenced as "```ts example=NAME". */
export interface ReadmeExamples {
  /** The README. */
  readonly text: string
  /** Every example, in the README's order. */
  readonly names: readonly string[]
  /** An example as it stands in the README. Throws where there is none of that name. */
  code(name: string): string
  /**
   * Runs an example, and gives back those of its own names that `results` lists.
   * `replacements` (default none) are made in its text first: in place of an address or a port that no test can have, say. Rejects where one of them
   * finds nothing to replace, and with whatever an import or the example throws.
   */
  run(name: string, results?: readonly string[], replacements?: Readonly<Record<string, string>>): Promise<Record<string, unknown>>
}

const AsyncFunction = (async () => {}).constructor as new (...source: string[]) => (load: (from: string) => Promise<unknown>) => Promise<Record<string, unknown>>

/**
 * The examples of the README at `url`. `load` gives the modules that they import: `(from) => import(from)` those which the calling test would import itself.
 * Throws where a block of TypeScript has no name, or one that another has already: it would not be run.
 */
export function readmeExamples(url: URL, load: (from: string) => Promise<unknown>): ReadmeExamples {
  const text = readFileSync(url, 'utf8')
  const examples = new Map<string, string>()
  for (const [fence, info, block] of text.matchAll(/^```(?:ts|typescript)\b(.*)\n([\s\S]*?)^```$/gm)) {
    const name = /^ example=(\S+)$/.exec(info as string)?.[1]
    if (name === undefined || examples.has(name)) throw new Error(`${url.pathname} has code that is no example of its own: ${fence.slice(0, fence.indexOf('\n'))}`)
    examples.set(name, block as string)
  }

  const code = (name: string): string => {
    const block = examples.get(name)
    if (block === undefined) throw new Error(`${url.pathname} has no example ${name}`)
    return block
  }

  return {
    text,
    names: [...examples.keys()],
    code,
    async run(name, results = [], replacements = {}) {
      let source = code(name)
      for (const [from, to] of Object.entries(replacements)) {
        if (!source.includes(from)) throw new Error(`the example ${name} has no ${from} to be replaced`)
        source = source.replaceAll(from, () => to)
      }
      return new AsyncFunction('load', `${asFunctionBody(source)}\nreturn { ${results.join(', ')} }`)(load)
    }
  }
}

/** A module's text as the body of an async function, which has `load` for its imports. Other forms of import than these are syntax errors there. */
function asFunctionBody(module: string): string {
  return stripTypeScriptTypes(module)
    .replace(/^import \{([^}]*)\} +from +'(.*)'$/gm, (_, names: string, from: string) => `const {${names.replaceAll(/ as /g, ': ')}} = await load('${from}')`)
    .replace(/^import (\w+) +from +'(.*)'$/gm, (_, local: string, from: string) => `const { default: ${local} } = await load('${from}')`)
    .replace(/^export (?!default\b)/gm, '')
}
