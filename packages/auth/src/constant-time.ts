/** Longest credential that is looked at, in UTF-16 code units: token, API key, or base64 of `user:password`. Whatever is longer is refused before anything is compared. */
export const MAX_CREDENTIAL_LENGTH = 4096

/**
 * Where `value` stands in `candidates`, or -1. The work depends on the lengths alone: every candidate is visited, those of the same length are
 * compared to their last code unit, and a match neither ends the walk nor takes another branch. So the time says how long the candidates are and
 * how many there are, nothing about what they hold. An empty or over-long value (`MAX_CREDENTIAL_LENGTH`) is never found.
 *
 * A digest per call would hide the lengths too, but costs some hundred times as much as this loop.
 */
export function constantTimeIndexOf(value: string, candidates: readonly string[]): number {
  const { length } = value
  if (length === 0 || length > MAX_CREDENTIAL_LENGTH) return -1
  let found = 0
  for (let i = 0; i < candidates.length; i++) {
    const candidate = candidates[i] as string
    if (candidate.length !== length) continue
    let difference = 0
    for (let j = 0; j < length; j++) difference |= value.charCodeAt(j) ^ candidate.charCodeAt(j)
    // All ones when nothing differed, else zero: a choice without a branch.
    const equal = (difference - 1) >> 31
    found = (equal & (i + 1)) | (~equal & found)
  }
  return found - 1
}
