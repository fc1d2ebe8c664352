/** Whether something is an address of an EVM network: 20 bytes in hexadecimal, and where letters are mixed, with a good checksum. */
export function isEvmAddress(text: string): boolean {
  if (!/^0x[0-9a-fA-F]{40}$/.test(text)) return false
  const digits = text.slice(2)
  if (digits === digits.toLowerCase() || digits === digits.toUpperCase()) return true
  return digits === withChecksum(digits.toLowerCase())
}

/** Whether something is an address of Solana: 32 bytes in base 58. */
export function isSolanaAddress(text: string): boolean {
  if (!/^[1-9A-HJ-NP-Za-km-z]{32,44}$/.test(text)) return false
  let value = 0n
  for (const letter of text) value = value * 58n + BigInt(base58.indexOf(letter))
  // Each leading 1 is a byte of zeros, which the number does not show.
  const zeros = /^1*/.exec(text)![0].length
  return zeros + Math.ceil(value.toString(16).length / 2) - (value === 0n ? 1 : 0) === 32
}

const base58 = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'

/** [ERC-55](https://eips.ethereum.org/EIPS/eip-55): the case of a letter is a bit of the hash of them all, so that one that is mistyped shows. */
function withChecksum(digits: string): string {
  const hash = keccak256(Buffer.from(digits)).toString('hex')
  return digits.replace(/[a-f]/g, (letter, at: number) =>
    Number.parseInt(hash[at]!, 16) >= 8 ? letter.toUpperCase() : letter,
  )
}

const lane = (1n << 64n) - 1n
/** In bytes: what of the state a block of the message meets. */
const rate = 136

/**
 * Keccak-256 as Ethereum has it: SHA-3 as it was before the standard changed its padding, so that `node:crypto` has none. It hashes
 * an address or two at start-up; it is not fast.
 *
 * @see [the Keccak reference](https://keccak.team/files/Keccak-reference-3.0.pdf), section 1.2
 */
function keccak256(message: Buffer): Buffer {
  const padded = Buffer.alloc(Math.ceil((message.length + 1) / rate) * rate)
  message.copy(padded)
  padded[message.length]! ^= 0x01
  padded[padded.length - 1]! ^= 0x80
  const state = Array.from({ length: 25 }, () => 0n)
  for (let block = 0; block < padded.length; block += rate) {
    for (let at = 0; at < rate / 8; at += 1) state[at]! ^= padded.readBigUInt64LE(block + 8 * at)
    permute(state)
  }
  const hash = Buffer.alloc(32)
  for (let at = 0; at < 4; at += 1) hash.writeBigUInt64LE(state[at]!, 8 * at)
  return hash
}

/** Keccak-f[1600]: 24 rounds of θ, ρ, π, χ and ι on lanes that stand at `x + 5 * y`. */
function permute(state: bigint[]): void {
  let register = 1n
  for (let round = 0; round < 24; round += 1) {
    theta(state)
    rhoAndPi(state)
    chi(state)
    for (let bit = 0n; bit < 7n; bit += 1n) {
      if ((register & 1n) === 1n) state[0]! ^= 1n << ((1n << bit) - 1n)
      register = (register << 1n) ^ ((register >> 7n) * 0x171n)
    }
  }
}

function theta(state: bigint[]): void {
  const parity = [0, 1, 2, 3, 4].map(
    (x) => state[x]! ^ state[x + 5]! ^ state[x + 10]! ^ state[x + 15]! ^ state[x + 20]!,
  )
  for (let at = 0; at < 25; at += 1) {
    const x = at % 5
    state[at]! ^= parity[(x + 4) % 5]! ^ rotate(parity[(x + 1) % 5]!, 1n)
  }
}

function rhoAndPi(state: bigint[]): void {
  let [x, y] = [1, 0]
  let moved = state[1]!
  for (let step = 1; step <= 24; step += 1) {
    ;[x, y] = [y, (2 * x + 3 * y) % 5]
    const at = x + 5 * y
    const there = state[at]!
    state[at] = rotate(moved, BigInt(((step * (step + 1)) / 2) % 64))
    moved = there
  }
}

function chi(state: bigint[]): void {
  for (let row = 0; row < 25; row += 5) {
    const lanes = state.slice(row, row + 5)
    for (let x = 0; x < 5; x += 1) state[row + x] = lanes[x]! ^ (~lanes[(x + 1) % 5]! & lane & lanes[(x + 2) % 5]!)
  }
}

function rotate(value: bigint, by: bigint): bigint {
  return ((value << by) | (value >> (64n - by))) & lane
}
