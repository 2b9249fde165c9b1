/**
 * Verification beside a server: the thread that serves does none of the work on
 * the file, a stop does not wait for it, and what a kill leaves of it is gone
 * after the next start.
 */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { exists } from "../../src/common/files.ts";
import { ServerProcess, testCount, TestFolder } from "../support/server.ts";
import { folderBackup, SHORT_LEASE } from "./support.ts";

/** 125 MB of them; it was measured with 300,000. */
const ENTRIES = testCount("DENOKV_TEST_VERIFIED_ENTRIES", 100_000);
/** Larger ones would take a page of 4 KiB each. */
const VALUE_BYTES = 900;
const VERIFIED = /The backup was restored and equals the database/;
const STOP_LIMIT_MS = 20_000;

const VERIFYING = ["--verify-every", "1s"];

async function serving(
  folder: TestFolder,
  args: string[],
): Promise<ServerProcess> {
  const backup = `${folder.path}/backup`;
  await Deno.mkdir(backup, { recursive: true });
  return ServerProcess.start({
    path: folder.database,
    backup: folderBackup(backup),
    args: [...SHORT_LEASE, ...args],
  });
}

/** The entries are made by the database itself. */
async function fill(folder: TestFolder): Promise<number> {
  const empty = await ServerProcess.start({ path: folder.database });
  await empty.stop();
  const db = new DatabaseSync(folder.database);
  db.exec(`
    pragma synchronous = off;
    with recursive numbers (n) as
      (select 1 union all select n + 1 from numbers where n < ${ENTRIES})
    insert into kv (k, v, v_encoding, version)
      select cast(printf('%08d', n) as blob), randomblob(${VALUE_BYTES}), 1, 1
      from numbers;
    update data_version set version = 100;
    pragma wal_checkpoint(truncate);`);
  db.close();
  return Deno.statSync(folder.database).size;
}

/** What the thread that serves has written to files; the system counts it. */
async function writtenByServingThread({ pid }: ServerProcess): Promise<number> {
  // The runtime lets nobody read there who is not allowed everything.
  const { stdout } = await new Deno.Command("cat", {
    args: [`/proc/${pid}/task/${pid}/io`],
  }).output();
  const counts = new TextDecoder().decode(stdout);
  return Number(/^wchar: (\d+)$/m.exec(counts)![1]);
}

function workingFile(folder: TestFolder): string {
  return `${folder.database}.verify.restoring`;
}

/** Resolves when a verification has begun to write its file. */
async function begun(folder: TestFolder): Promise<void> {
  const working = workingFile(folder);
  const events = Deno.watchFs(folder.path, { recursive: false });
  if (exists(working)) return events.close();
  for await (const event of events) {
    if (event.paths.includes(working)) break;
  }
}

Deno.test({
  name: "a verification is none of the serving thread's work",
  ignore: Deno.build.os !== "linux",
  async fn() {
    await using folder = await TestFolder.make();
    const sizeBytes = await fill(folder);
    await using server = await serving(folder, VERIFYING);
    await begun(folder);
    const before = await writtenByServingThread(server);
    let isVerified = false;
    const verified = server.logged(VERIFIED).finally(() => isVerified = true);
    let answers = 0;
    let longestMs = 0;
    while (!isVerified) {
      const askedMs = performance.now();
      const answer = await fetch(`${server.url}/-/ready`);
      await answer.body?.cancel();
      assert.equal(answer.status, 200);
      answers++;
      longestMs = Math.max(longestMs, performance.now() - askedMs);
    }
    await verified;
    const written = await writtenByServingThread(server) - before;
    console.log(
      `${answers} answers beside it, the slowest in ${longestMs.toFixed(0)} ms`,
    );
    assert.ok(written < sizeBytes / 100, `${written} of ${sizeBytes} bytes`);
    // Stopped in the midst of the next one, it waits for nothing of it.
    await begun(folder);
    const { code, tookMs } = await server.stop();
    assert.equal(code, 0);
    assert.ok(tookMs < STOP_LIMIT_MS, `${tookMs} ms`);
    {
      await using killed = await serving(folder, VERIFYING);
      await begun(folder);
      await killed.kill();
      assert.ok(exists(workingFile(folder)));
    }
    await using _next = await serving(folder, []);
    assert.ok(!exists(workingFile(folder)));
  },
});
