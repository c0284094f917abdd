/** Checks a realm and quotes it (RFC 9110 section 5.6.4). Throws `TypeError` unless it is printable ASCII, so that no realm can end the field or start another. */
export function quoteRealm(realm: string): string {
  if (typeof realm !== 'string' || !/^[\x20-\x7e]*$/.test(realm)) throw new TypeError('realm must be printable ASCII')
  return `"${realm.replace(/["\\]/g, '\\$&')}"`
}
