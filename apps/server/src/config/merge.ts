/** A mapping of plain data, as YAML and JSON can say it. */
type Mapping = Record<string, unknown>

export function isMapping(value: unknown): value is Mapping {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** `over` on top of `under`: mappings are joined key by key, everything else (lists too) is replaced. Neither is changed. */
export function mergeConfig(under: unknown, over: unknown): unknown {
  if (over === undefined) return under
  if (!isMapping(under) || !isMapping(over)) return over
  const merged: Mapping = { ...under }
  for (const [key, value] of Object.entries(over)) merged[key] = mergeConfig(merged[key], value)
  return merged
}
