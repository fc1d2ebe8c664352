// A way to a server that does what networks do.

import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

/**
 * What it does with bytes: it passes them on, or
 * - `swallow`: takes them and says nothing; a connection that was swallowed once stays dead, as behind a firewall that forgot it.
 * - `{ delayMs }`: passes each part on so much later, either way.
 * - `cut`: passes on half of the next answer and ends the connection.
 * - `reset`: resets a connection as soon as something is sent.
 */
export type Weather = 'clear' | 'swallow' | 'cut' | 'reset' | { readonly delayMs: number }

export interface Proxy {
  readonly port: number
  weather: Weather
  /** Resets what is connected now. */
  resetAll(): void
  stop(): Promise<void>
}

export async function proxyTo(port: number): Promise<Proxy> {
  const open = new Set<Socket>()
  const proxy = { weather: 'clear' as Weather }
  const listener = createServer((near) => {
    const far = connect(port, '127.0.0.1')
    open.add(near).add(far)
    let isDead = false
    const end = (): void => {
      near.destroy()
      far.destroy()
      open.delete(near)
      open.delete(far)
    }
    const pass = (to: Socket, bytes: Buffer, isAnswer: boolean): void => {
      const { weather } = proxy
      if (weather === 'swallow') isDead = true
      if (isDead) return
      if (weather === 'reset') {
        near.resetAndDestroy()
        far.destroy()
      } else if (weather === 'cut' && isAnswer) to.write(bytes.subarray(0, bytes.length >> 1), end)
      else if (typeof weather === 'object') setTimeout(() => to.writable && to.write(bytes), weather.delayMs)
      else to.write(bytes)
    }
    near.on('data', (bytes) => pass(far, bytes, false))
    far.on('data', (bytes) => pass(near, bytes, true))
    for (const one of [near, far]) one.on('error', end).on('close', () => (isDead && one === far ? undefined : end()))
  })
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve))
  return Object.assign(proxy, {
    port: (listener.address() as AddressInfo).port,
    resetAll() {
      for (const one of open) one.resetAndDestroy()
    },
    async stop() {
      for (const one of open) one.destroy()
      await new Promise((resolve) => listener.close(resolve))
    },
  })
}
