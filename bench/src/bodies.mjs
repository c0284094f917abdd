// The bodies every server of the table serves, and the header fields of a stored response: the same bytes for all, so that only the work differs.
export const sizes = { '1k': 1024, '64k': 64 * 1024, '1m': 1024 * 1024 }

export function bytes(size) {
  const buffer = Buffer.allocUnsafe(size)
  let state = 12345
  for (let i = 0; i < size; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    buffer[i] = state >>> 24
  }
  return buffer
}

/** Size of the body that a target such as `/hit/1k` or `/pass/1k?7` names. */
export const sizeOf = (target) => sizes[/\/(\w+)(?:\?|$)/.exec(target)?.[1]]
