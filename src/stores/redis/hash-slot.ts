/** Of a Redis Cluster. */
const slots = 16_384

/** The hash slot of a key, as the specification of Redis Cluster computes it: all keys with one hash tag have the same. */
export function hashSlot(key: string): number {
  let crc = 0
  for (const byte of Buffer.from(hashTag(key))) crc = ((crc << 8) & 0xffff) ^ crcOfByte[(crc >> 8) ^ byte]!
  return crc % slots
}

/** What of a key is hashed: that between its first brace and the next one that closes, if there is anything; else the whole key. */
function hashTag(key: string): string {
  const opens = key.indexOf('{')
  if (opens === -1) return key
  const closes = key.indexOf('}', opens + 1)
  return closes <= opens + 1 ? key : key.slice(opens + 1, closes)
}

/** CRC16/XMODEM (polynomial x¹⁶ + x¹² + x⁵ + 1) of each byte. */
const crcOfByte = Uint16Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 8
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1
  return crc
})
