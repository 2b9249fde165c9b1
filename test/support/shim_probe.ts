/**
 * The program that the test of the fault shim starts. It works on files in
 * the folder of its argument; for each line of its input it does what the
 * line says and answers a line of JSON, what failed and how long it took.
 *
 * - `sync <count> <name>`: `Deno.FsFile.syncData` on that many descriptors of
 *   one file at once, as a server does on its thread pool
 * - `append <name>`, `truncate <name>`: one call
 * - `commit`: a transaction in WAL mode by node:sqlite, made durable
 */
import { createInterface } from "node:readline/promises";
import { stdin } from "node:process";
import { DatabaseSync } from "node:sqlite";

const folder = Deno.args[0];
const database = new DatabaseSync(`${folder}/data.sqlite`);
database.exec("pragma journal_mode=wal; pragma synchronous=full");
database.exec("create table if not exists t(x)");

async function run(action: string, name: string, count: number): Promise<void> {
  if (action === "commit") return database.exec("insert into t values (1)");
  const files = await Promise.all(
    Array.from(
      { length: count },
      () => Deno.open(`${folder}/${name}`, { create: true, append: true }),
    ),
  );
  try {
    await Promise.all(files.map(async (file) => {
      if (action === "sync") await file.syncData();
      else if (action === "append") await file.write(new Uint8Array(10));
      else if (action === "truncate") await file.truncate(0);
      else throw new Error(`no such action: ${action}`);
    }));
  } finally {
    for (const file of files) file.close();
  }
}

console.log("ready");
for await (const line of createInterface({ input: stdin })) {
  const [action, name, count] = line.split(" ");
  const start = performance.now();
  let failed = "";
  try {
    await run(action, name, Number(count ?? 1));
  } catch (error) {
    failed = String(error);
  }
  const tookMs = performance.now() - start;
  console.log(JSON.stringify({ failed, tookMs }));
}
database.close();
