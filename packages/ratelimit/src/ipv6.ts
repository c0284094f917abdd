/** Reused: an address is read and written without a wait in between. */
const groups = new Uint16Array(8)

/**
 * The network of an IPv6 address, its first `bits` bits (1 to 128), in one spelling whatever the spelling of the address: `2001:db8:0:7::/64`.
 * An IPv4 address inside (`::ffff:192.0.2.1`) is given as such; whatever is no IPv6 address is given back as it is.
 */
export function networkOf(address: string, bits: number): string {
  if (!address.includes(':') || !parse(address)) return address
  if (groups[0] === 0 && groups[1] === 0 && groups[2] === 0 && groups[3] === 0 && groups[4] === 0 && groups[5] === 0xffff) {
    const high = groups[6] as number
    const low = groups[7] as number
    return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`
  }
  const count = (bits + 15) >> 4
  let network = ''
  for (let i = 0; i < count; i++) {
    const kept = bits - i * 16
    const group = groups[i] as number
    network += `${i === 0 ? '' : ':'}${(kept >= 16 ? group : group & (0xffff << (16 - kept))).toString(16)}`
  }
  return `${network}${count < 8 ? '::' : ''}/${bits}`
}

/** Reads an address (RFC 4291 section 2.2, a zone after `%` is left out) into `groups`. False when it is none. */
function parse(address: string): boolean {
  const zone = address.indexOf('%')
  const end = zone === -1 ? address.length : zone
  let count = 0
  let gap = -1
  let i = 0
  if (address.startsWith('::')) {
    gap = 0
    i = 2
  }
  while (i < end) {
    if (count === 8) return false
    let value = 0
    let digits = 0
    const start = i
    for (; i < end; i++, digits++) {
      const digit = hexDigit(address.charCodeAt(i))
      if (digit < 0) break
      value = value * 16 + digit
    }
    if (i < end && address.charCodeAt(i) === 46 /* . */) {
      if (count > 6 || !parseTail(address, start, end, count)) return false
      count += 2
      break
    }
    if (digits === 0 || digits > 4) return false
    groups[count++] = value
    if (i === end) break
    if (address.charCodeAt(i++) !== 58 /* : */ || i === end) return false
    if (address.charCodeAt(i) === 58) {
      if (gap !== -1) return false
      gap = count
      i++
    }
  }
  if (gap === -1) return count === 8
  if (count === 8) return false
  groups.copyWithin(8 - (count - gap), gap, count)
  groups.fill(0, gap, 8 - (count - gap))
  return true
}

/** The IPv4 address that ends an IPv6 address, as two groups. */
function parseTail(address: string, start: number, end: number, at: number): boolean {
  const parts = address.slice(start, end).split('.')
  if (parts.length !== 4 || !parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) <= 255)) return false
  const [a, b, c, d] = parts.map(Number) as [number, number, number, number]
  groups[at] = a * 256 + b
  groups[at + 1] = c * 256 + d
  return true
}

function hexDigit(code: number): number {
  if (code >= 48 && code <= 57) return code - 48
  if (code >= 97 && code <= 102) return code - 87
  return code >= 65 && code <= 70 ? code - 55 : -1
}
