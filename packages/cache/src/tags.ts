import { combined, type HeaderMap } from '@proxy/pipeline'

/** Fields by which origins tag responses for purging: keys separated by spaces, or by commas. */
const fields = ['surrogate-key', 'cache-tag', 'xkey'] as const

/** Tags beyond these are not kept: an origin's mistake must not fill the memory. */
const MAX_TAGS = 256
const MAX_TAG_LENGTH = 256

/** Surrogate keys of a response, each once. */
export function tagsOf(headers: Readonly<HeaderMap>): readonly string[] {
  let tags: Set<string> | undefined
  for (const name of fields) {
    const text = combined(headers[name])
    if (text === undefined) continue
    for (const tag of text.split(/[\s,]+/)) {
      if (tag === '' || tag.length > MAX_TAG_LENGTH) continue
      tags ??= new Set()
      if (tags.size < MAX_TAGS) tags.add(tag)
    }
  }
  return tags === undefined ? none : [...tags]
}

const none: readonly string[] = []
