/** Fields of content negotiation whose members are compared without regard to case. Their order means nothing, but for the weights (RFC 9110 section 12.5). */
const caseless: ReadonlySet<string> = new Set(['accept-encoding', 'accept-language', 'accept-charset'])

/** Longer lists are left as they are: nobody's preferences have so many members. */
const MAX_MEMBERS = 64

/** Longer values are worked out each time. Characters. */
const MAX_REMEMBERED_VALUE = 256
const MAX_REMEMBERED = 500
/** By field name and value: browsers send the same few. */
const remembered = new Map<string, string>()

/** The value of a field that selects among variants, in the form that it shares with others of the same meaning. */
export function normalised(name: string, value: string): string {
  if (value.length > MAX_REMEMBERED_VALUE) return normalise(name, value)
  const id = `${name}:${value}`
  let normal = remembered.get(id)
  if (normal === undefined) {
    normal = normalise(name, value)
    if (remembered.size >= MAX_REMEMBERED) remembered.clear()
    remembered.set(id, normal)
  }
  return normal
}

function normalise(name: string, value: string): string {
  // Whitespace first, so that the pattern around separators has at most one to skip: `\s*,` would take time in the square of the value's length.
  const text = value
    .replace(/[ \t]+/g, ' ')
    .replace(/ ?, ?/g, ',')
    .trim()
  if (caseless.has(name)) return byWeight(text.toLowerCase())
  // Of media types, parameters may be quoted and case may matter: the order alone is put right.
  return name === 'accept' && !text.includes('"') ? byWeight(text) : text
}

/** Members in descending order of weight, then of text, each once; the weight left out where it is 1. */
function byWeight(list: string): string {
  const members = list.split(',')
  if (members.length > MAX_MEMBERS) return list
  const weighed = new Map<string, number>()
  for (const member of members) {
    const text = member.replace(/ ?; ?/g, ';').trim()
    if (text === '') continue
    const match = /^(.*?);q=([01](?:\.\d{0,3})?)$/i.exec(text)
    const [key, weight] = match === null ? [text, 1] : [match[1] as string, Number(match[2])]
    weighed.set(key, Math.max(weighed.get(key) ?? 0, weight))
  }
  return [...weighed]
    .sort(([a, wa], [b, wb]) => wb - wa || (a < b ? -1 : 1))
    .map(([key, weight]) => (weight === 1 ? key : `${key};q=${weight}`))
    .join(',')
}
