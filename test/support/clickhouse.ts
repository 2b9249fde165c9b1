/** The real engine of ClickHouse, out of PyPI's chdb, behind HTTP. */
import { fileURLToPath } from "node:url";
import { freePort, startChildServer } from "./child_server.ts";
import { pipPackage } from "./pip.ts";

const VERSION = "26.9.0";
const PROGRAM = fileURLToPath(new URL("clickhouse_http.py", import.meta.url));

export interface ClickHouse {
  readonly url: string;
  query(text: string): Promise<string>;
  stop(): Promise<void>;
}

/** Undefined, after printing SKIPPED, where it cannot be had. Stop it. */
export async function startClickHouse(): Promise<ClickHouse | undefined> {
  const found = await pipPackage("chdb-core", VERSION);
  if ("skipped" in found) {
    console.log(`SKIPPED: ${found.skipped}`);
    return undefined;
  }
  const folder = await Deno.makeTempDir({ prefix: "clickhouse-" });
  const port = freePort();
  const url = `http://127.0.0.1:${port}`;
  const server = await startChildServer({
    name: "ClickHouse",
    path: "python3",
    args: [PROGRAM, folder, String(port)],
    env: { PYTHONPATH: found.folder },
    readyUrl: url,
    temporaryFolder: folder,
  });
  return {
    url,
    async query(query) {
      const answer = await fetch(`${url}/?${new URLSearchParams({ query })}`, {
        method: "POST",
      });
      const text = await answer.text();
      if (!answer.ok) throw new Error(text);
      return text;
    },
    stop: () => server.stop(),
  };
}
