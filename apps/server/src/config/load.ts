import { readFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { ConfigError, type KeyPath, nameOf } from './errors.ts'
import { isMapping, mergeConfig } from './merge.ts'
import { resolveConfig } from './resolve.ts'
import type { Config } from './schema.ts'
import { parseYaml } from './yaml.ts'

type Environment = Readonly<Record<string, string | undefined>>

/** One source of settings. */
export interface Layer {
  readonly value: unknown
  /** Where `path`, or the nearest thing around it, was set, and how many parts of the path were found (-1: this source is no place to look for it). */
  locate(path: KeyPath, atKey: boolean): { readonly place: string; readonly depth: number }
}

/** A configuration, and where its settings were made. */
export interface LocatedConfig {
  readonly config: Config
  readonly place: (path: KeyPath, atKey: boolean) => string
}

/**
 * Reads a configuration file (YAML or JSON), puts environment variables in place of `${NAME}`, and checks it.
 * Paths of files in it count from its own folder. Throws `ConfigError` naming the file, line, column and key.
 */
export async function loadConfig(file: string, env: Environment = process.env): Promise<Config> {
  return joinLayers([await fileLayer(file, env)]).config
}

export async function fileLayer(file: string, env: Environment): Promise<Layer> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    const reason = code === 'ENOENT' ? 'there is no such file' : code === 'EISDIR' ? 'it is a folder' : code === 'EACCES' ? 'permission denied' : message
    throw new ConfigError([{ path: [], message: `cannot be read: ${reason}` }], () => file, error)
  }
  const parsed = parseYaml(text, file, env)
  // Refused here: merged with other layers, it would be replaced as a whole. A file of nothing sets nothing.
  if (parsed.value !== null && !isMapping(parsed.value)) {
    throw new ConfigError([{ path: [], message: `must be a mapping, not ${nameOf(parsed.value)}` }], () => parsed.locate([], false).place)
  }
  return { value: withAbsolutePaths(parsed.value ?? {}, dirname(resolve(file))), locate: (path, atKey) => parsed.locate(path, atKey) }
}

/** Joins sources, later ones over earlier ones, and checks the whole. Throws `ConfigError` that says where each wrong setting was made. */
export function joinLayers(layers: readonly Layer[]): LocatedConfig {
  const config = layers.reduce<unknown>((joined, layer) => mergeConfig(joined, layer.value), undefined)
  const place = (path: KeyPath, atKey: boolean): string => {
    let best: { place: string; depth: number } | undefined
    for (const layer of layers) {
      const found = layer.locate(path, atKey)
      if (best === undefined || found.depth >= best.depth) best = found
    }
    return best?.place ?? 'configuration'
  }
  try {
    resolveConfig(config)
  } catch (error) {
    throw located(error, place)
  }
  return { config: config as Config, place }
}

/** An error of the configuration told with the place of each setting; any other error as it is. */
export function located(error: unknown, place: LocatedConfig['place']): unknown {
  return error instanceof ConfigError ? new ConfigError(error.issues, place, error.cause) : error
}

/** Keys whose value names a file. */
const fileKeys: readonly (readonly string[])[] = [
  ['listeners', '*', 'tls', 'cert'],
  ['listeners', '*', 'tls', 'key'],
  ['pools', '*', 'tls', 'ca']
]

function withAbsolutePaths(value: unknown, folder: string): unknown {
  for (const keys of fileKeys) makeAbsolute(value, keys, folder)
  return value
}

function makeAbsolute(value: unknown, [key, ...rest]: readonly string[], folder: string): void {
  if (typeof value !== 'object' || value === null || key === undefined) return
  const container = value as Record<string, unknown>
  for (const name of key === '*' ? Object.keys(container) : [key]) {
    const child = container[name]
    if (rest.length > 0) makeAbsolute(child, rest, folder)
    else if (typeof child === 'string' && child !== '') container[name] = resolve(folder, child)
  }
}
