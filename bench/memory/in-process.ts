import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { libraries } from '../libraries/libraries.ts'
import { counts } from './clients.ts'

/** What a client takes in the memory store of a library, in bytes of heap, after one request. */
export interface HeapBytes {
  readonly name: string
  readonly limits: number
  readonly clients: number
  readonly bytesEach: number
}

/** In a process for each, so that no other's heap is counted. */
export async function heapBytes(clients: number): Promise<HeapBytes[]> {
  const found: HeapBytes[] = []
  for (const limits of counts) {
    for (const { name, inMemory } of libraries) {
      if (!inMemory) continue
      const child = fork(fileURLToPath(new URL('../heap.ts', import.meta.url)), [name, `${limits}`, `${clients}`], {
        execArgv: [...process.execArgv, '--expose-gc', '--max-old-space-size=6000'],
      })
      const ended = once(child, 'exit').then(([code]) => {
        throw new Error(`the process with ${name} ended at once, with ${code}`)
      })
      const [bytes] = (await Promise.race([once(child, 'message'), ended])) as [number]
      ended.catch(() => {})
      child.kill('SIGKILL')
      found.push({ name, limits, clients, bytesEach: bytes / clients })
    }
  }
  return found
}
