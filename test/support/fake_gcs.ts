/** Google Cloud Storage's emulator for a test: its own process and port. */
import { onFreePort, startChildServer } from "./child_server.ts";
import { programOrSkip } from "./programs.ts";

export interface FakeGcs {
  readonly endpoint: string;
  readonly pid: number;
  createBucket(name: string): Promise<void>;
  stop(): Promise<void>;
}

/**
 * Starts fake-gcs-server on 127.0.0.1, its objects in memory. Undefined,
 * after printing SKIPPED, where it cannot be had. Stop it.
 */
export async function startFakeGcs(): Promise<FakeGcs | undefined> {
  const path = await programOrSkip("fake-gcs-server");
  if (path === undefined) return undefined;
  return await onFreePort((port) => startOn(port, path));
}

async function startOn(port: number, path: string): Promise<FakeGcs> {
  const endpoint = `http://127.0.0.1:${port}`;
  const args = [
    ["-scheme", "http"],
    ["-host", "127.0.0.1"],
    ["-port", String(port)],
    ["-public-host", `127.0.0.1:${port}`],
    ["-external-url", endpoint],
    ["-backend", "memory"],
    ["-log-level", "error"],
  ].flat();
  const server = await startChildServer({
    name: "fake-gcs-server",
    path,
    args,
    readyUrl: `${endpoint}/_internal/healthcheck`,
  });
  return {
    endpoint,
    pid: server.pid,
    async createBucket(name) {
      const answer = await fetch(`${endpoint}/storage/v1/b?project=test`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ name }),
      });
      const said = await answer.text();
      if (!answer.ok) throw new Error(`no bucket ${name}: ${said}`);
    },
    stop: () => server.stop(),
  };
}
