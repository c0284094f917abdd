/** The path of a request target, without the query. */
export function pathOf(target: string): string {
  const end = target.indexOf('?')
  return end === -1 ? target : target.slice(0, end)
}

/** What decoding could change: an escape, a parameter, an empty segment or one of dots. */
const undecoded = /%|;|\/\/|\/\.{1,2}(?:\/|$)/

/**
 * The path as the most lenient origin reads it: escapes decoded (`%2f` too), parameters (`;x`) cut off, empty segments and dot segments resolved.
 * Only for deciding what a path leads to; never sent. The same string when there is nothing to decode.
 */
export function decodedPath(path: string): string {
  if (!undecoded.test(path)) return path
  let text = path
  // An origin behind another proxy may decode once more.
  for (let round = 0; round < 3 && text.includes('%'); round++) text = text.replace(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
  const segments: string[] = []
  const parts = text.replaceAll('\\', '/').split('/')
  for (const part of parts) {
    const segment = part.split(';', 1)[0] as string
    if (segment === '..') segments.pop()
    else if (segment !== '' && segment !== '.') segments.push(segment)
  }
  const last = parts.at(-1)
  return `/${segments.join('/')}${segments.length > 0 && (last === '' || last === '.' || last === '..') ? '/' : ''}`
}
