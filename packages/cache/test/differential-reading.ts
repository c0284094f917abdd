/** One directive as its text has it. `argument` without its quotes. */
interface Directive {
  readonly name: string
  readonly argument: string | undefined
  readonly quoted: boolean
}

/** The RFC reading of a field that http-cache-semantics comes to only when the rewriting of this name, and those before it, have been applied. */
export type Rewriting = 'quoted' | 'named fields' | 'letter case' | 'argument of a flag' | 'delta-seconds' | 'repeated' | 'overflow'

const timed: ReadonlySet<string> = new Set(['max-age', 's-maxage', 'min-fresh', 'max-stale', 'stale-while-revalidate', 'stale-if-error'])

/** Splits Cache-Control as RFC 9111 section 5.2 writes it, an argument of no characters aside; undefined for what it is not. Written apart from the parser under test. */
export function directivesOf(text: string): Directive[] | undefined {
  const parts: string[] = ['']
  let quoted = false
  for (let i = 0; i < text.length; i++) {
    const char = text[i] as string
    if (char === '"') quoted = !quoted
    if (char === ',' && !quoted) {
      parts.push('')
      continue
    }
    parts[parts.length - 1] += char
    if (char === '\\' && quoted) parts[parts.length - 1] += text[++i] ?? ''
  }
  if (quoted) return undefined
  const directives: Directive[] = []
  for (const part of parts.map((each) => each.trim()).filter((each) => each !== '')) {
    const [, name, argument] = /^([\w!#$%&'*+.^`|~-]+)(?:[ \t]*=[ \t]*([\w!#$%&'*+.^`|~-]*|"(?:[^"\\]|\\.)*"))?$/.exec(part) ?? []
    if (name === undefined) return undefined
    const isQuoted = argument?.startsWith('"') === true
    directives.push({ name, argument: isQuoted ? argument?.slice(1, -1) : argument, quoted: isQuoted })
  }
  return directives
}

const rewritings: readonly [Rewriting, (directives: Directive[]) => Directive[]][] = [
  ['quoted', (all) => all.map((each) => (each.quoted && /[,=\\]/.test(each.argument ?? '') && !namesFields(each) ? { ...each, argument: 'x' } : each))],
  ['named fields', (all) => all.filter((each) => !namesFields(each))],
  ['letter case', (all) => all.map((each) => ({ ...each, name: each.name.toLowerCase() }))],
  ['argument of a flag', (all) => all.map((each) => (timed.has(each.name) ? each : { ...each, argument: undefined }))],
  [
    'delta-seconds',
    (all) => all.map((each) => (timed.has(each.name) && !(each.name === 'max-stale' && each.argument === undefined) && !/^\d+$/.test(each.argument ?? '') ? { ...each, argument: '0' } : each))
  ],
  ['repeated', (all) => all.map((each) => (timed.has(each.name) && all.some((other) => other.name === each.name && limited(other) !== limited(each)) ? { ...each, argument: '0' } : each))],
  ['overflow', (all) => all.map((each) => (timed.has(each.name) ? { ...each, argument: limited(each) } : each))]
]

/** Two arguments of the same meaning, such as 60 and 0060, are not two. */
function limited({ argument }: Directive): string | undefined {
  return argument === undefined ? undefined : String(Math.min(Number(argument), 2 ** 31))
}

function namesFields({ name, argument }: Directive): boolean {
  return /^(no-cache|private)$/i.test(name) && argument !== undefined && /^[ \t,]*[\w-]+([ \t,]+[\w-]+)*[ \t,]*$/.test(argument) && !/[\w-][ \t]+[\w-]/.test(argument)
}

function textOf(directives: readonly Directive[]): string {
  return directives.map(({ name, argument, quoted }) => (argument === undefined ? name : quoted ? `${name}="${argument}"` : `${name}=${argument}`)).join(', ')
}

/** The first rewriting of a well-formed field after which `agrees`; undefined when none brings that about. */
export function settlingRewriting(text: string, agrees: (rewritten: string) => boolean): Rewriting | undefined {
  let directives = directivesOf(text)
  if (directives === undefined) return undefined
  for (const [name, rewrite] of rewritings) {
    directives = rewrite(directives)
    if (agrees(textOf(directives))) return name
  }
  return undefined
}
