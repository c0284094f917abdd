import type { CliOptions } from './cli.ts'
import { ConfigError, type KeyPath } from './config/errors.ts'
import { fileLayer, joinLayers, type Layer, type LocatedConfig } from './config/load.ts'
import { isMapping, mergeConfig } from './config/merge.ts'
import { isPixivEnvironment, pixivPreset } from './presets/pixiv.ts'

type Environment = Readonly<Record<string, string | undefined>>

/** What to run: a configuration, or (undefined) nothing was said and it is the sample's turn. */
export interface Sources {
  readonly located: LocatedConfig | undefined
  readonly warnings: readonly string[]
}

/**
 * The configuration from all that was given, later over earlier: preset, file, flags. The preset is found by itself only where neither a file nor an
 * upstream is named: a file may well use the same variables for something else. Throws `ConfigError`.
 */
export async function gatherConfig(options: CliOptions, env: Environment): Promise<Sources> {
  const layers: Layer[] = []
  const warnings: string[] = []
  if (options.preset === 'pixiv' || (options.config === undefined && options.upstream === undefined && isPixivEnvironment(env))) {
    const preset = pixivPreset(env)
    warnings.push(...preset.warnings)
    layers.push(presetLayer(preset))
  }
  if (options.config !== undefined) layers.push(await fileLayer(options.config, env))
  if (layers.length === 0 && options.upstream === undefined) return { located: undefined, warnings }
  if (options.upstream !== undefined) checkUpstream(layers.reduce<unknown>((joined, { value }) => mergeConfig(joined, value), {}))
  layers.push(flagLayer(options))
  return { located: joinLayers(layers), warnings }
}

/** Whether `--upstream` has an effect over what is set already. Before the two are joined: then nobody could tell who wanted a second pool. */
function checkUpstream(value: unknown): void {
  const { routes, pools } = value as { readonly routes?: unknown; readonly pools?: unknown }
  const refuse = (message: string): never => {
    throw new ConfigError([{ path: [], message }], () => '--upstream')
  }
  if (Array.isArray(routes)) {
    if (!routes.some((route: { readonly pool?: unknown } | null) => route?.pool === 'default')) refuse('sets the pool "default", which no route uses')
  } else if (isMapping(pools)) {
    const others = Object.keys(pools).filter((name) => name !== 'default')
    if (others.length > 0) refuse(`sets the pool "default", beside "${others.join('", "')}": routes must say which requests go where`)
  }
}

function presetLayer({ config, origins }: { readonly config: unknown; readonly origins: Readonly<Record<string, string>> }): Layer {
  return {
    value: config,
    locate(path) {
      for (let depth = path.length; depth > 0; depth--) {
        const name = origins[path.slice(0, depth).join('.')]
        if (name !== undefined) return { place: `environment variable ${name}`, depth }
      }
      return { place: 'preset pixiv', depth: 0 }
    }
  }
}

/** Settings that stand on the command line. */
export function flagLayer({ listen, upstream, accessLog }: CliOptions): Layer {
  return {
    value: {
      ...(listen !== undefined && { listeners: [listen] }),
      ...(upstream !== undefined && { pools: { default: { targets: upstream } } }),
      ...(accessLog !== undefined && { observability: { accessLog } })
    },
    locate(path: KeyPath) {
      const [section] = path
      if (section === 'listeners' && listen !== undefined) return { place: '--listen', depth: path.length }
      if (upstream !== undefined && section === 'pools' && path[1] === 'default' && (path.length === 2 || path[2] === 'targets')) return { place: '--upstream', depth: path.length }
      if (accessLog !== undefined && section === 'observability' && path[1] === 'accessLog') return { place: '--access-log', depth: path.length }
      // What is nowhere is missing from the file, where there is one.
      return { place: 'command line', depth: -1 }
    }
  }
}
