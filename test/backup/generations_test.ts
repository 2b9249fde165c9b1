/**
 * Changes of generation, seen from outside: what makes one necessary never
 * stops a server, and what it was never costs a point that was acknowledged.
 */
import assert from "node:assert/strict";
import {
  REST_SECRET,
  runCommand,
  ServerProcess,
  TestFolder,
} from "../support/server.ts";
import { SHORT_LEASE, startBucket } from "./support.ts";

/** Longer than any of this takes on a busy machine. */
const LONG_MS = 60_000;

/** @returns the write's versionstamp */
async function write(url: string, key: string): Promise<string> {
  const answer = await fetch(`${url}/${key}`, {
    method: "POST",
    body: key,
    headers: { authorization: REST_SECRET },
    signal: AbortSignal.timeout(LONG_MS),
  });
  const body = await answer.text();
  assert.equal(answer.status, 200, body);
  return JSON.parse(body).versionstamp;
}

/** Another program sets a key in the file. */
async function foreignWrite(path: string, key: string): Promise<void> {
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "eval",
      "--unstable-kv",
      `const kv = await Deno.openKv(Deno.args[0]);
       await kv.set([Deno.args[1]], "theirs");
       kv.close();`,
      path,
      key,
    ],
  }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
}

for (const durability of ["s3", "local"]) {
  Deno.test(`${durability}: another program writes to the file: the backup begins anew, and every write is answered`, async () => {
    await using bucket = await startBucket();
    if (bucket === undefined) return;
    await using folder = await TestFolder.make();
    const backup = bucket.at(`foreign-${durability}`);
    await using server = await ServerProcess.start({
      path: folder.database,
      backup,
      args: [
        "--durability",
        durability,
        "--backup-interval",
        "100ms",
        ...SHORT_LEASE,
      ],
    });
    await write(server.url, "first");
    for (let round = 0; round < 3; round++) {
      await foreignWrite(folder.database, `theirs ${round}`);
      // Several at once: those behind the gap wait for its generation too.
      await Promise.all(
        [0, 1, 2].map((i) => write(server.url, `ours/${round}/${i}`)),
      );
    }
    const last = await write(server.url, "last");
    assert.equal((await server.stop()).code, 0);
    const output = `${folder.path}/restored.sqlite`;
    const { code, err } = await runCommand(
      [
        "restore",
        "--from",
        backup.url,
        "--s3-endpoint",
        backup.endpoint!,
        "--at",
        last,
        "-o",
        output,
      ],
      { folder: folder.path, backup },
    );
    assert.equal(code, 0, err);
    const kv = await Deno.openKv(output);
    try {
      for (let round = 0; round < 3; round++) {
        const { value } = await kv.get([`theirs ${round}`]);
        assert.equal(value, "theirs");
      }
    } finally {
      kv.close();
    }
  });
}
