import type { CliOptions } from '../cli.ts'

import { joinLayers, located } from '../config/load.ts'
import { flagLayer } from '../layers.ts'
import { createServer, type ProxyServer } from '../server.ts'
import { sampleImages } from './images.ts'
import { startSampleOrigin } from './origin.ts'

/** A proxy with something to proxy. */
export interface Sample {
  readonly server: ProxyServer
  /** What to try, for people. */
  readonly guide: string
  /** Ends the origin. */
  stop(): Promise<void>
}

/** Starts the sample origin, and the proxy in front of it on 127.0.0.1:8080 or where the options say. Throws `ConfigError` when that address cannot be had. */
export async function startSample(options: CliOptions): Promise<Sample> {
  const origin = await startSampleOrigin(await sampleImages())
  const { config, place } = joinLayers([flagLayer({ ...options, upstream: [origin.url] })])
  try {
    const server = await createServer(config)
    await server.listen()
    return { server, guide: guide(server.urls[0] as string, origin.url), stop: () => origin.stop() }
  } catch (error) {
    await origin.stop()
    throw located(error, place)
  }
}

function guide(proxy: string, origin: string): string {
  return `
The proxy listens on ${proxy}, in front of a sample origin on ${origin}. Try:

  curl -s -o /dev/null -D - ${proxy}/images/sky.png     a MISS: Cache-Status says that it was fetched and stored
  curl -s -o /dev/null -D - ${proxy}/images/sky.png     a HIT: the same answer from memory, with its Age
  curl -s -o /dev/null -D - ${proxy}/images/large.png   the same with 10 MB
  time curl -s ${proxy}/api/slow                        2 s the first time, nothing the second
  curl -s ${proxy}/_proxy/metrics                       what was counted
  curl -s -X POST ${origin}/stop                       the origin goes away: what is in the cache is still served, the rest is 502

Your own origin instead:  npm start -- --upstream https://example.org

`
}
