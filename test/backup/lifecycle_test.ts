/**
 * Torn down and relaunched at random moments under load, with and without the
 * local file, over a real MinIO. Rounds on demand: DENOKV_TEST_RELAUNCHES.
 */
import assert from "node:assert/strict";
import { seededRandom } from "../../src/common/random.ts";
import { KvClient } from "../support/kv_client.ts";
import { auditAll, Writer, writeUntilDown } from "../support/ledger.ts";
import {
  ServerProcess,
  testCount,
  TestFolder,
  testSeed,
} from "../support/server.ts";
import { http1 } from "../support/transport.ts";
import { SHORT_LEASE, startBucket } from "./support.ts";

const ROUNDS = 18;
const WRITERS = 8;
const LONGEST_LOAD_MS = 500;

function removeDatabase(path: string): void {
  for (const end of ["", "-wal", "-shm", "-lock"]) {
    try {
      Deno.removeSync(path + end);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

Deno.test("s3: killed and relaunched, with and without its file, it loses no acknowledged write", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  const random = seededRandom(testSeed());
  const rounds = testCount("DENOKV_TEST_RELAUNCHES", ROUNDS);
  const writers = Array.from(
    { length: WRITERS },
    (_, i) => new Writer(`w${i}`),
  );
  const args = ["--durability", "s3", ...SHORT_LEASE];
  const backup = bucket.at("s3");
  for (let round = 0; round <= rounds; round++) {
    await using server = await ServerProcess.start({
      path: folder.database,
      backup,
      args,
    });
    const client = await KvClient.open(http1(server.url));
    await auditAll(writers, client);
    if (round < rounds) {
      const load = writeUntilDown(writers, [client]);
      // The moment is the test's own choice; there is no event to await.
      const loadMs = random.below(LONGEST_LOAD_MS);
      await new Promise((resolve) => setTimeout(resolve, loadMs));
      if (random.below(4) === 0) assert.equal((await server.stop()).code, 0);
      else await server.kill();
      await load;
      if (random.below(2) === 0) removeDatabase(folder.database);
    }
    client.close();
  }
  const acknowledged = writers.flatMap((writer) => writer.acknowledged).length;
  console.log(
    `${acknowledged} writes acknowledged over ${rounds} relaunches, none lost`,
  );
  assert.ok(acknowledged > rounds);
});

const RECENT = 800;
const INTERVAL_MS = 200;
/** A busy machine may be late with everything by this much. */
const SLACK_MS = 2000;

Deno.test("local: with its file nothing is lost, and without it the interval at most", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  await using folder = await TestFolder.make();
  const random = seededRandom(testSeed());
  const rounds = testCount("DENOKV_TEST_RELAUNCHES", ROUNDS);
  const args = ["--backup-interval", `${INTERVAL_MS}ms`, ...SHORT_LEASE];
  const backup = bucket.at("local");
  /** When each write was acknowledged; its number is its key. */
  const acknowledged = new Map<number, number>();
  let next = 0;
  let lost = 0;
  let deadline = 0;
  let isFileGone = false;
  for (let round = 0; round <= rounds; round++) {
    await using server = await ServerProcess.start({
      path: folder.database,
      backup,
      args,
    });
    const rest = (number: number, init?: RequestInit) =>
      fetch(`${server.url}/numbers/${number}`, {
        ...init,
        headers: { authorization: "denorocks" },
      });
    for (const [number, atMs] of acknowledged) {
      // All of them in the end; until then, those at the edge.
      if (round < rounds && number < next - RECENT) continue;
      const answer = await rest(number);
      await answer.body?.cancel();
      if (answer.status === 200) continue;
      assert.equal(answer.status, 404);
      assert.ok(isFileGone, `write ${number} is lost, and the file was there`);
      assert.ok(
        atMs > deadline - INTERVAL_MS - SLACK_MS,
        `write ${number} is lost, ${deadline - atMs} ms before the kill`,
      );
      acknowledged.delete(number);
      lost++;
    }
    if (round === rounds) break;
    let isUp = true;
    const writing = (async () => {
      while (isUp) {
        const number = next++;
        try {
          const answer = await rest(number, { method: "POST", body: "x" });
          await answer.body?.cancel();
          if (answer.status === 200) acknowledged.set(number, Date.now());
        } catch {
          isUp = false;
        }
      }
    })();
    const loadMs = 300 + random.below(LONGEST_LOAD_MS);
    await new Promise((resolve) => setTimeout(resolve, loadMs));
    await server.kill();
    deadline = Date.now();
    isUp = false;
    await writing;
    isFileGone = random.below(2) === 0;
    if (isFileGone) removeDatabase(folder.database);
  }
  console.log(
    `${next} writes over ${rounds} relaunches, ${lost} lost with their file`,
  );
  assert.ok(acknowledged.size > rounds);
});
