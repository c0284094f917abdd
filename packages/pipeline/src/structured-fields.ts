/** Structured field values, RFC 9651: dictionaries. Reading one either succeeds whole or fails whole, as section 4.2 demands. */

/** A bare item. Dates and decimals are objects, so that `60`, `60.0` and `@60` are three things. */
export type BareItem = number | string | boolean | Uint8Array | Token | Decimal | SfDate | DisplayString

export class Token {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}
export class Decimal {
  readonly value: number
  constructor(value: number) {
    this.value = value
  }
}
export class SfDate {
  /** Seconds since 1970. */
  readonly seconds: number
  constructor(seconds: number) {
    this.seconds = seconds
  }
}
export class DisplayString {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

export type Parameters = ReadonlyMap<string, BareItem>

export interface Member {
  /** A bare item, or the items of an inner list. */
  readonly value: BareItem | readonly Item[]
  readonly parameters: Parameters
}

export interface Item extends Member {
  readonly value: BareItem
}

/** A dictionary; undefined when `text` (the lines of the field, joined by ", ") is none. Of a key that is repeated the last value counts. Linear time. */
export function parseDictionary(text: string): ReadonlyMap<string, Member> | undefined {
  try {
    return new Reader(text).dictionary()
  } catch (error) {
    if (error instanceof Malformed) return undefined
    throw error
  }
}

class Malformed extends Error {}
const malformed = new Malformed('not a structured field')

const keyPattern = /[a-z*][a-z0-9_.*-]*/y
const numberPattern = /-?(\d{1,15})(?!\d)(?:\.(\d{1,3})(?!\d))?/y
const tokenPattern = /[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*/y
const stringPattern = /"((?:[ !\x23-\x5b\x5d-\x7e]|\\["\\])*)"/y
const bytesPattern = /:([A-Za-z0-9+/]*={0,2}):/y
const displayPattern = /%"((?:[ !\x23\x24\x26-\x7e]|%[0-9a-f]{2})*)"/y
const spaces = / */y
const optionalWhitespace = /[ \t]*/y

class Reader {
  private readonly text: string
  private at = 0

  constructor(text: string) {
    this.text = text
  }

  dictionary(): ReadonlyMap<string, Member> {
    const members = new Map<string, Member>()
    this.match(spaces)
    while (this.at < this.text.length) {
      const key = this.need(keyPattern)[0]
      // A member that is given again takes the last place too (section 4.2.2 keeps the first one's; nobody reads the order here).
      members.set(key, this.take('=') ? this.member() : { value: true, parameters: this.parameters() })
      this.match(optionalWhitespace)
      if (this.at === this.text.length) break
      if (!this.take(',')) throw malformed
      this.match(optionalWhitespace)
      if (this.at === this.text.length) throw malformed
    }
    return members
  }

  private member(): Member {
    if (!this.take('(')) return this.item()
    const items: Item[] = []
    for (;;) {
      this.match(spaces)
      if (this.take(')')) return { value: items, parameters: this.parameters() }
      items.push(this.item())
      const next = this.text[this.at]
      if (next !== ' ' && next !== ')') throw malformed
    }
  }

  private item(): Item {
    return { value: this.bareItem(), parameters: this.parameters() }
  }

  private parameters(): Parameters {
    if (this.text[this.at] !== ';') return noParameters
    const parameters = new Map<string, BareItem>()
    while (this.take(';')) {
      this.match(spaces)
      const key = this.need(keyPattern)[0]
      parameters.set(key, this.take('=') ? this.bareItem() : true)
    }
    return parameters
  }

  private bareItem(): BareItem {
    const char = this.text[this.at] ?? ''
    if (char === '-' || (char >= '0' && char <= '9')) return this.number()
    if (char === '"') return (this.need(stringPattern)[1] as string).replace(/\\(["\\])/g, '$1')
    if (char === ':') return this.bytes()
    if (char === '?') return this.boolean()
    if (char === '@') return this.date()
    if (char === '%') return this.displayString()
    return new Token(this.need(tokenPattern)[0])
  }

  private number(): number | Decimal {
    const [text, whole = '', fraction] = this.need(numberPattern)
    if (fraction === undefined) {
      // "1." is neither.
      if (this.text[this.at] === '.') throw malformed
      return Number(text)
    }
    if (whole.length > 12) throw malformed
    return new Decimal(Number(text))
  }

  private bytes(): Uint8Array {
    return Buffer.from(this.need(bytesPattern)[1] as string, 'base64')
  }

  private boolean(): boolean {
    this.at++
    if (this.take('1')) return true
    if (this.take('0')) return false
    throw malformed
  }

  private date(): SfDate {
    this.at++
    const seconds = this.number()
    if (typeof seconds !== 'number') throw malformed
    return new SfDate(seconds)
  }

  private displayString(): DisplayString {
    const encoded = this.need(displayPattern)[1] as string
    try {
      return new DisplayString(decodeURIComponent(encoded))
    } catch {
      // No UTF-8.
      throw malformed
    }
  }

  private take(char: string): boolean {
    if (this.text[this.at] !== char) return false
    this.at++
    return true
  }

  private match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.at
    const match = pattern.exec(this.text)
    if (match !== null) this.at = pattern.lastIndex
    return match
  }

  private need(pattern: RegExp): RegExpExecArray {
    const match = this.match(pattern)
    if (match === null) throw malformed
    return match
  }
}

const noParameters: Parameters = new Map()
