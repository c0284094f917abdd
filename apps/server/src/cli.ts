import { Command, InvalidArgumentError } from 'commander'

/** What the command line says. */
export interface CliOptions {
  readonly config?: string
  readonly upstream?: readonly string[]
  readonly listen?: { readonly host: string; readonly port: number }
  readonly preset?: 'pixiv'
  readonly accessLog?: boolean
}

/** Parses arguments (without node and script). Throws `CommanderError`, whose message was written to standard error, for those that make no sense. */
export function parseArguments(args: readonly string[], version: string): CliOptions {
  const command = new Command('proxy-server')
    .description('A caching reverse proxy. Without options it starts with a sample origin behind it.')
    .version(version)
    .option('--config <file>', 'configuration file, YAML or JSON')
    .option('--upstream <urls>', 'where to forward requests: one URL or several, separated by commas', parseUpstreams)
    .option('--listen <host:port>', 'address to listen on (default: 127.0.0.1:8080)', parseListen)
    .option('--preset <name>', 'settings from the environment variables of: pixiv', parsePreset)
    .option('--access-log <on|off>', 'one log line per request (default: on)', parseSwitch)
    .allowExcessArguments(false)
    .exitOverride()
  command.parse([...args], { from: 'user' })
  return command.opts<CliOptions>()
}

function parseUpstreams(value: string): readonly string[] {
  const urls = value.split(',').map((url) => url.trim())
  if (urls.includes('')) throw new InvalidArgumentError('one URL or several, separated by commas, are wanted.')
  return urls
}

/** `127.0.0.1:8080`, `[::1]:8080`, `:8080` (all IPv4 addresses) or a port alone (this machine). */
export function parseListen(value: string): { host: string; port: number } {
  const match = /^(?:(?:\[([0-9a-f:.]+)\]|([^:[\]]*)):)?(\d{1,5})$/i.exec(value)
  const port = Number(match?.[3])
  if (match === null || port > 65_535) throw new InvalidArgumentError('HOST:PORT is wanted, such as 127.0.0.1:8080 or [::1]:8080.')
  const host = match[1] ?? match[2]
  return { host: host === undefined ? '127.0.0.1' : host === '' ? '0.0.0.0' : host, port }
}

function parsePreset(value: string): 'pixiv' {
  if (value !== 'pixiv') throw new InvalidArgumentError('the presets are: pixiv.')
  return value
}

function parseSwitch(value: string): boolean {
  if (value !== 'on' && value !== 'off') throw new InvalidArgumentError('on or off is wanted.')
  return value === 'on'
}
