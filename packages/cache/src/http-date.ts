const imfDate = /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d{2}) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) (\d{4}) (\d{2}):(\d{2}):(\d{2}) GMT$/
const rfc850Date = /^(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (\d{2})-(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)-(\d{2}) (\d{2}):(\d{2}):(\d{2}) GMT$/
const asctimeDate = /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) ([ \d]\d) (\d{2}):(\d{2}):(\d{2}) (\d{4})$/
const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']

/** Of one answer a date is asked for several times, and answers of one second share it. */
const remembered = new Map<string, number>()
const MAX_REMEMBERED = 64

/** HTTP-date in its three forms (RFC 9110 section 5.6.7), milliseconds since 1970; undefined for anything else, and for a field that was sent twice. */
export function parseHttpDate(value: string | string[] | undefined): number | undefined {
  if (typeof value !== 'string') return undefined
  const known = remembered.get(value)
  if (known !== undefined) return known
  const ms = parse(value)
  // What is no date may be of any length, and is not worth keeping.
  if (ms !== undefined) {
    if (remembered.size >= MAX_REMEMBERED) remembered.clear()
    remembered.set(value, ms)
  }
  return ms
}

function parse(value: string): number | undefined {
  let match = imfDate.exec(value)
  if (match !== null) return utc(match[3], match[2], match[1], match[4], match[5], match[6])
  match = rfc850Date.exec(value)
  if (match !== null) {
    // A year that looks more than 50 years ahead is in the past.
    const year = 2000 + Number(match[3])
    return utc(String(year > new Date().getUTCFullYear() + 50 ? year - 100 : year), match[2], match[1], match[4], match[5], match[6])
  }
  match = asctimeDate.exec(value)
  return match === null ? undefined : utc(match[6], match[1], match[2], match[3], match[4], match[5])
}

function utc(year?: string, month?: string, day?: string, hour?: string, minute?: string, second?: string): number | undefined {
  const [y, m, d] = [Number(year), months.indexOf(month as string), Number(day)]
  const [hours, minutes, seconds] = [Number(hour), Number(minute), Number(second)]
  // The year 1000 keeps Date.UTC from reading two digits as 19xx; 60 is a leap second.
  if (y < 1000 || d < 1 || d > daysIn(y, m) || hours > 23 || minutes > 59 || seconds > 60) return undefined
  return Date.UTC(y, m, d, hours, minutes, seconds)
}

function daysIn(year: number, month: number): number {
  if (month === 1) return (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0 ? 29 : 28
  return month === 3 || month === 5 || month === 8 || month === 10 ? 30 : 31
}
