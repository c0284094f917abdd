import { readFileSync } from 'node:fs'
import { CommanderError } from 'commander'
import { type CliOptions, parseArguments } from './cli.ts'
import { ConfigError } from './config/errors.ts'
import { located } from './config/load.ts'
import { gatherConfig } from './layers.ts'
import { startSample } from './sample/start.ts'
import { createServer, type ProxyServer } from './server.ts'
import { endOnSignal, exitStatus, surviveFaults } from './shutdown.ts'

async function run(options: CliOptions): Promise<void> {
  const { located: source, warnings } = await gatherConfig(options, process.env)
  if (source === undefined) {
    const sample = await startSample(options)
    surviveFaults(sample.server)
    endOnSignal(sample.server, () => sample.stop())
    process.stdout.write(sample.guide)
    return
  }
  let server: ProxyServer
  try {
    server = await createServer(source.config)
    for (const warning of warnings) server.note('warn', warning)
    await server.listen()
  } catch (error) {
    throw located(error, source.place)
  }
  surviveFaults(server)
  endOnSignal(server)
}

function version(): string {
  return (JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }).version
}

try {
  await run(parseArguments(process.argv.slice(2), version()))
} catch (error) {
  // commander has written its message (or the help that was asked for) already.
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? exitStatus.ok : exitStatus.badInput
  else if (error instanceof ConfigError) {
    process.stderr.write(`${error.message}\n`)
    process.exitCode = exitStatus.badInput
  } else throw error
}
