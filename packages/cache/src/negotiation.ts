import { combined, type HeaderMap } from '@proxy/pipeline'

/** What the origin has to choose from. Where a list is given, the field's value becomes what of the list its client takes, for the key and for the origin alike. */
export interface NegotiationOptions {
  /** Content codings: `['br', 'gzip']`. */
  readonly encodings?: readonly string[]
  /** Media types: `['image/avif', 'image/webp']`. A client takes what it names; of `image/*` and `*\/*` nobody knows what is meant. */
  readonly types?: readonly string[]
  /** Language tags: `['en', 'de', 'pt-br']`. The one that fits best counts. */
  readonly languages?: readonly string[]
}

const forms: Readonly<Record<keyof NegotiationOptions, RegExp>> = {
  encodings: /^[\w!#$%&'+.^`|~-]+$/,
  types: /^[\w!#$&^.+-]+\/[\w!#$&^.+-]+$/,
  languages: /^[a-z]{1,8}(?:-[a-z0-9]{1,8})*$/
}

/** Longer values are worked out each time. Characters. */
const MAX_REMEMBERED_VALUE = 256
const MAX_REMEMBERED = 500

type Reading = (value: string) => string

/** Reduces Accept, Accept-Encoding and Accept-Language to values of a list (RFC 9110 section 12.5). Throws TypeError for an empty list, and for what is none of its kind. */
export class Negotiation {
  private readonly readings = new Map<string, Reading>()
  /** By field name and value: browsers send the same few. */
  private readonly remembered = new Map<string, string>()

  constructor({ encodings, languages, types }: NegotiationOptions = {}) {
    if (encodings !== undefined) this.add('encodings', 'accept-encoding', encodings, (listed) => (value) => taken(value, listed, '*').join(', '))
    if (types !== undefined) this.add('types', 'accept', types, (listed) => (value) => taken(value, listed, undefined).join(', '))
    if (languages !== undefined) this.add('languages', 'accept-language', languages, (listed) => (value) => bestLanguage(value, listed) ?? '')
  }

  private add(option: keyof NegotiationOptions, field: string, list: readonly string[], make: (listed: readonly string[]) => Reading): void {
    const listed = list.map((each) => each.toLowerCase())
    if (listed.length === 0) throw new TypeError(`key.${option} is empty`)
    const wrong = listed.find((each) => !forms[option].test(each))
    if (wrong !== undefined) throw new TypeError(`key.${option}: ${JSON.stringify(wrong)} is none`)
    this.readings.set(field, make(listed))
  }

  get isUsed(): boolean {
    return this.readings.size > 0
  }

  /** The field's value as it counts; undefined where there is no list for it. Nothing of the list: the empty text, as without the field. */
  read(name: string, value: string | undefined): string | undefined {
    const reading = this.readings.get(name)
    return reading === undefined ? undefined : value === undefined ? '' : this.reduced(name, reading, value)
  }

  private reduced(name: string, reading: Reading, value: string): string {
    if (value.length > MAX_REMEMBERED_VALUE) return reading(value)
    const id = `${name}:${value}`
    let counts = this.remembered.get(id)
    if (counts === undefined) {
      counts = reading(value)
      if (this.remembered.size >= MAX_REMEMBERED) this.remembered.clear()
      this.remembered.set(id, counts)
    }
    return counts
  }

  /** Changes fields to what counts of them, so that the origin chooses by what the key says. */
  apply(headers: HeaderMap): void {
    for (const [name, reading] of this.readings) {
      const value = combined(headers[name])
      const counts = value === undefined ? '' : this.reduced(name, reading, value)
      // Without the field any coding would do (RFC 9110 section 12.5.3), and what comes is for all who take none.
      if (counts === '' && name === 'accept-encoding') headers[name] = 'identity'
      else if (counts === '') {
        if (value !== undefined) delete headers[name]
      }
      // Whoever names types takes others too, if less gladly: an origin that has none of them must not answer 406.
      else headers[name] = name === 'accept' ? `${counts}, */*;q=0.1` : counts
    }
  }
}

/** Which of the listed values are named with a weight above 0, in the order of the list. */
function taken(value: string, listed: readonly string[], wildcard: string | undefined): string[] {
  const weights = weighed(value)
  const others = wildcard === undefined ? 0 : (weights.get(wildcard) ?? 0)
  return listed.filter((each) => (weights.get(each) ?? others) > 0)
}

/** RFC 4647 section 3.4: each range by weight, then with ever fewer subtags. A range also takes what is more specific than it. */
function bestLanguage(value: string, listed: readonly string[]): string | undefined {
  const ranges = [...weighed(value)].filter(([, weight]) => weight > 0).sort(([, a], [, b]) => b - a)
  for (const [range] of ranges) {
    for (let tag = range; tag !== ''; tag = tag.slice(0, Math.max(0, tag.lastIndexOf('-')))) {
      if (listed.includes(tag)) return tag
    }
    const narrower = listed.find((each) => each.startsWith(`${range}-`))
    if (narrower !== undefined) return narrower
  }
  return undefined
}

/** Longer lists are cut: nobody's preferences have so many members. */
const MAX_MEMBERS = 64

function weighed(value: string): Map<string, number> {
  const weights = new Map<string, number>()
  for (const member of value.toLowerCase().split(',', MAX_MEMBERS)) {
    const [name = '', ...parameters] = member.split(';').map((part) => part.trim())
    if (name === '') continue
    const weight = parameters.find((parameter) => parameter.startsWith('q='))
    const q = weight === undefined ? 1 : Number(weight.slice(2))
    if (q >= 0 && q <= 1) weights.set(name, Math.max(weights.get(name) ?? 0, q))
  }
  return weights
}
