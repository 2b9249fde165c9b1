/**
 * A proxy of bytes on 127.0.0.1, between a client and a server, that does to a
 * stream what networks do: it cuts it anywhere, changes it, or holds it up.
 */
import type { Random } from "../../src/common/random.ts";

export interface LyingProxy extends AsyncDisposable {
  readonly url: string;
  /** About how many bytes pass between two mishaps; Infinity: none. */
  bytesPerMishap: number;
  /** What has happened so far. */
  readonly mishaps: { cut: number; changed: number; stalled: number };
  /** No connection is taken, and those that there are are cut. */
  isDown: boolean;
}

const STALL_MS = 50;

export function startLyingProxy(target: string, random: Random): LyingProxy {
  const { hostname, port } = new URL(target);
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const open = new Set<Deno.TcpConn>();
  const under = new Set<Promise<void>>();
  let isDown = false;
  const mishaps = { cut: 0, changed: 0, stalled: 0 };

  function cut(...connections: Deno.TcpConn[]): void {
    for (const connection of connections) {
      if (!open.delete(connection)) continue;
      try {
        connection.close();
      } catch {
        // It is closed.
      }
    }
  }

  async function pass(
    from: Deno.TcpConn,
    to: Deno.TcpConn,
    lies: boolean,
  ): Promise<void> {
    const buffer = new Uint8Array(16 * 1024);
    try {
      for (;;) {
        const count = await from.read(buffer);
        if (count === null) break;
        let bytes = buffer.subarray(0, count);
        if (lies && random.below(1e6) < 1e6 * count / proxy.bytesPerMishap) {
          const kind = (["cut", "changed", "stalled"] as const)[
            random.below(3)
          ];
          mishaps[kind]++;
          if (kind === "changed") bytes[random.below(count)] ^= 1;
          else if (kind === "cut") {
            bytes = bytes.subarray(0, random.below(count));
          } else await new Promise((resolve) => setTimeout(resolve, STALL_MS));
          await write(to, bytes);
          if (kind === "cut") break;
        } else await write(to, bytes);
      }
    } catch {
      // The other side is gone.
    }
    cut(from, to);
  }

  async function write(to: Deno.TcpConn, bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) {
      at += await to.write(bytes.subarray(at));
    }
  }

  async function serve(client: Deno.TcpConn): Promise<void> {
    if (isDown) return client.close();
    open.add(client);
    try {
      const server = await Deno.connect({ hostname, port: Number(port) });
      open.add(server);
      await Promise.all([
        pass(client, server, false),
        pass(server, client, true),
      ]);
    } catch {
      cut(client);
    }
  }

  const accepting = (async () => {
    for await (const client of listener) {
      const served = serve(client).finally(() => under.delete(served));
      under.add(served);
    }
  })();
  const proxy: LyingProxy = {
    url: `http://127.0.0.1:${(listener.addr as Deno.NetAddr).port}`,
    bytesPerMishap: Infinity,
    mishaps,
    get isDown() {
      return isDown;
    },
    set isDown(value: boolean) {
      isDown = value;
      if (value) cut(...open);
    },
    async [Symbol.asyncDispose]() {
      listener.close();
      cut(...open);
      await accepting.catch(() => {});
      await Promise.all(under);
    },
  };
  return proxy;
}
