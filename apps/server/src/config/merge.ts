/** A value of plain data: what YAML and JSON can say. */
type Plain = Record<string, unknown>

function isPlain(value: unknown): value is Plain {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** `over` on top of `under`: mappings are joined key by key, everything else (lists too) is replaced. Neither is changed. */
export function mergeConfig(under: unknown, over: unknown): unknown {
  if (over === undefined) return under
  if (!isPlain(under) || !isPlain(over)) return over
  const merged: Plain = { ...under }
  for (const [key, value] of Object.entries(over)) merged[key] = mergeConfig(merged[key], value)
  return merged
}
