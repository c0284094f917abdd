import { cacheResult, type ProxyError, type ProxyRequest, upstreamAttempts, upstreamName, upstreamResult } from '@proxy/pipeline'
import { describeError, type ServerLog } from './logger.ts'
import { pathOf } from './target-path.ts'
import { failure, startedMs } from './trace.ts'

export type LogRequest = (request: ProxyRequest | undefined, status: number, outcome: string, error: ProxyError | undefined) => void

/**
 * One line per request, in the form of the logger's own; a general serialiser costs as much as the rest of a hit's answer. It names the path alone: a query and
 * header fields may hold credentials, so neither is ever written. `request` is undefined for messages that were refused before they became one. Undefined
 * where the log's level leaves such lines out.
 */
export function accessLog({ logger, writeLine }: Pick<ServerLog, 'logger' | 'writeLine'>, mask: (text: string) => string): LogRequest | undefined {
  if (!logger.isLevelEnabled('info')) return undefined
  return (request, status, outcome, error) => {
    const exchange = request?.exchange
    const cause = error ?? exchange?.get(failure)
    const since = exchange?.get(startedMs)
    let line = `{"level":"info","time":${Date.now()}`
    // A CONNECT has none: no answer of the pipeline carries it.
    if (exchange !== undefined && exchange.requestId !== '') line += `,"requestId":${quoted(exchange.requestId)}`
    if (request !== undefined) {
      line += `,"client":${quoted(request.remoteAddress)},"method":${quoted(request.method)},"host":${quoted(request.authority)},"path":${quoted(pathOf(request.target))}`
    }
    line += `,"status":${status}`
    if (since !== undefined) line += `,"durationMs":${Math.round((performance.now() - since) * 1000) / 1000}`
    if (exchange !== undefined) {
      const cache = exchange.get(cacheResult)
      if (cache !== undefined) line += `,"cache":${quoted(cache)}`
      const upstream = exchange.get(upstreamName)
      if (upstream !== undefined) line += `,"upstream":${quoted(upstream)}`
      const result = exchange.get(upstreamResult)
      if (result !== undefined) line += `,"upstreamResult":${typeof result === 'number' ? result : quoted(result)}`
      const attempts = exchange.get(upstreamAttempts)
      if (attempts !== undefined) line += `,"attempts":${attempts}`
    }
    if (outcome !== 'complete') line += `,"outcome":${quoted(outcome)}`
    if (cause !== undefined) line += `,"error":${JSON.stringify(describeError(cause, mask))}`
    writeLine(`${line},"msg":"request"}\n`)
  }
}

/** What cannot stand in a JSON text as it is: controls, quotes, backslashes, and halves of characters. */
const special = /[^ !#-[\]-\ud7ff\ue000-\uffff]/

function quoted(text: string): string {
  return special.test(text) ? JSON.stringify(text) : `"${text}"`
}
