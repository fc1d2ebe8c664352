/** Events by their time: a binary heap. Of two at one time, either may come first, but always the same. */
export class EventQueue {
  readonly #heap: { at: number; item: number }[] = []

  add(at: number, item: number): void {
    const heap = this.#heap
    let index = heap.push({ at, item }) - 1
    while (index > 0) {
      const parent = (index - 1) >> 1
      if (heap[parent]!.at <= heap[index]!.at) break
      this.#swap(parent, index)
      index = parent
    }
  }

  /** Takes the earliest out; undefined when there is none. */
  take(): { at: number; item: number } | undefined {
    const heap = this.#heap
    const first = heap[0]
    const last = heap.pop()
    if (first === undefined || heap.length === 0) return first
    heap[0] = last!
    for (let index = 0; ;) {
      const left = 2 * index + 1
      if (left >= heap.length) return first
      const right = left + 1
      const child = right < heap.length && heap[right]!.at < heap[left]!.at ? right : left
      if (heap[index]!.at <= heap[child]!.at) return first
      this.#swap(index, child)
      index = child
    }
  }

  #swap(one: number, other: number): void {
    const heap = this.#heap
    const held = heap[one]!
    heap[one] = heap[other]!
    heap[other] = held
  }
}
