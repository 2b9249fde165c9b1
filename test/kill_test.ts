/**
 * kill -9 at random moments under load: every acknowledged write is there,
 * no other is there in part, versionstamps never go back. 50 rounds; more by
 * DENOKV_TEST_KILLS.
 */
import assert from "node:assert/strict";
import { seededRandom } from "../src/common/random.ts";
import { set } from "../src/store/contract/support.ts";
import { KvClient } from "./support/kv_client.ts";
import { auditAll, Writer, writeUntilDown } from "./support/ledger.ts";
import {
  ServerProcess,
  testCount,
  TestFolder,
  testSeed,
} from "./support/server.ts";
import { http1, http2Connection } from "./support/transport.ts";

const ROUNDS = 50;
const WRITERS = 12;
/** The kill comes at some moment of the first so many ms under load. */
const LONGEST_LOAD_MS = 300;

Deno.test("kill -9 under load loses no acknowledged write and leaves none in part", async () => {
  const random = seededRandom(testSeed());
  const rounds = testCount("DENOKV_TEST_KILLS", ROUNDS);
  await using folder = await TestFolder.make();
  const writers = Array.from(
    { length: WRITERS },
    (_, i) => new Writer(`writer ${i}`),
  );
  let newest = 0;
  for (let round = 0; round <= rounds; round++) {
    await using server = await ServerProcess.start({ path: folder.database });
    const clients = await Promise.all([
      KvClient.open(http2Connection(server.url)),
      KvClient.open(http1(server.url)),
    ]);
    newest = Math.max(newest, await auditAll(writers, clients[0]));
    const next = await clients[0].commit([set("round", `${round}`)]);
    assert.ok(next > newest, `versionstamp ${next} after ${newest}`);
    newest = next;
    if (round < rounds) {
      const load = writeUntilDown(writers, clients);
      // The moment is the test's own choice; there is no event to await.
      const loadMs = random.below(LONGEST_LOAD_MS);
      await new Promise((resolve) => setTimeout(resolve, loadMs));
      await server.kill();
      await load;
    }
    for (const client of clients) client.close();
  }
  const acknowledged = writers.reduce(
    (sum, writer) => sum + writer.acknowledged.length,
    0,
  );
  const sent = writers.reduce((sum, writer) => sum + writer.sent, 0);
  console.log(`${acknowledged} of ${sent} writes acknowledged, none lost`);
  assert.ok(acknowledged > rounds);
});
