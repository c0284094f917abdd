/** Upper bounds of the buckets, seconds. */
const bounds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

/** The durations of requests with one method and status. */
export class DurationSeries {
  readonly method: string
  readonly status: number
  count = 0
  private sum = 0
  /** How many fell into each bucket alone; the last is for what exceeds all bounds. */
  private readonly buckets: number[] = Array.from({ length: bounds.length + 1 }, () => 0)

  constructor(method: string, status: number) {
    this.method = method
    this.status = status
  }

  observe(seconds: number): void {
    let i = 0
    while (i < bounds.length && seconds > (bounds[i] as number)) i++
    ;(this.buckets[i] as number)++
    this.count++
    this.sum += seconds
  }

  /** Its lines in the text format of Prometheus; buckets are cumulative there. */
  render(name: string): string {
    const labels = `method="${this.method}",status="${this.status}"`
    let lines = ''
    let total = 0
    for (const [i, bound] of bounds.entries()) {
      total += this.buckets[i] as number
      lines += `${name}_bucket{le="${bound}",${labels}} ${total}\n`
    }
    return `${lines}${name}_bucket{le="+Inf",${labels}} ${this.count}\n${name}_sum{${labels}} ${this.sum}\n${name}_count{${labels}} ${this.count}\n`
  }
}

/** A histogram by method and status. prom-client's looks its labels up again for each observation, which is the price of all else that is counted together. */
export class Durations {
  private readonly name: string
  private readonly help: string
  private readonly byMethod = new Map<string, Map<number, DurationSeries>>()

  constructor(name: string, help: string) {
    this.name = name
    this.help = help
  }

  observe(method: string, status: number, seconds: number): void {
    let byStatus = this.byMethod.get(method)
    if (byStatus === undefined) this.byMethod.set(method, (byStatus = new Map()))
    let series = byStatus.get(status)
    if (series === undefined) byStatus.set(status, (series = new DurationSeries(method, status)))
    series.observe(seconds)
  }

  *series(): IterableIterator<DurationSeries> {
    for (const byStatus of this.byMethod.values()) yield* byStatus.values()
  }

  /** https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format */
  render(): string {
    let text = `# HELP ${this.name} ${this.help}\n# TYPE ${this.name} histogram\n`
    for (const series of this.series()) text += series.render(this.name)
    return text
  }
}
