/** Draws whose request comes next. */
export type Keys = () => string

const clients: readonly string[] = Array.from({ length: 10_000 }, (_, index) => `client:${index}`)

/** In no order, each as often as any other. */
export const uniform: Keys = () => clients[Math.floor(Math.random() * clients.length)]!

/** Some ask much more than others: the second half as often as the first, the third a third as often (Zipf, exponent 1). */
export const zipf: Keys = drawnBy((rank) => 1 / (rank + 1))

/** One client, over and over. */
export const one: Keys = () => clients[0]!

/** Drawn beforehand, so that drawing costs all the same. */
function drawnBy(weightOf: (rank: number) => number): Keys {
  const sums: number[] = []
  let sum = 0
  for (let rank = 0; rank < clients.length; rank += 1) sums.push((sum += weightOf(rank)))
  const drawn = Array.from({ length: 2 ** 17 }, () => {
    const at = Math.random() * sum
    let [low, high] = [0, sums.length - 1]
    while (low < high) {
      const middle = (low + high) >> 1
      if (sums[middle]! < at) low = middle + 1
      else high = middle
    }
    return clients[low]!
  })
  return () => drawn[Math.floor(Math.random() * drawn.length)]!
}
