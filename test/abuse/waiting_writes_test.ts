/** Writes that wait while an fsync hangs. */
import assert from "node:assert/strict";
import { atomic, check, set } from "../../src/store/contract/support.ts";
import { until } from "../support/faulty_server.ts";
import { encodeWrite, message } from "../support/kv_messages.ts";
import { TestFolder } from "../support/server.ts";
import { type FaultShim, faultShim } from "../support/shim.ts";
import { Attack } from "./attack.ts";
import { attacked, CEILING_WITH_SECRET_MIB, type Victim } from "./victim.ts";

const BODY_BYTES = 4_100_000;
/** A field that no message has; a reader passes over it. */
const UNKNOWN_FIELD = 15;

/** A body filled up to a full size with what the server does not need. */
function padded(write: Uint8Array): Uint8Array<ArrayBuffer> {
  const rest = new Uint8Array(BODY_BYTES - write.length);
  const padding = message([UNKNOWN_FIELD, rest]);
  const out = new Uint8Array(write.length + padding.length);
  out.set(write);
  out.set(padding, write.length);
  return out;
}

const longKey = (index: number) => `${index} `.padEnd(2000, "k");

const WRITES: [name: string, body: Uint8Array<ArrayBuffer>, count: number][] = [
  [
    "120 small writes in bodies of 4 MB, of unknown fields",
    padded(encodeWrite(atomic([set("a", "1")], [check("absent", null)]))),
    120,
  ],
  [
    "1,500 writes with 100 checks of 2 KB",
    encodeWrite(atomic(
      [set("a", "1")],
      Array.from({ length: 100 }, (_, i) => check(longKey(i), null)),
    )),
    1500,
  ],
  [
    "200 writes of 780 KB",
    encodeWrite(atomic(
      Array.from({ length: 12 }, (_, i) => set(`${i}`, "v".repeat(65_000))),
    )),
    200,
  ],
];

async function whileFsyncHangs(
  name: string,
  attack: (victim: Victim, shim: FaultShim) => Promise<void>,
): Promise<void> {
  await using folder = await TestFolder.make();
  await using shim = await faultShim(folder.path);
  if (!shim) return;
  await attacked({
    name: `while an fsync hangs: ${name}`,
    ceilingMib: CEILING_WITH_SECRET_MIB,
    readsOnly: true,
    env: shim.env,
    folder,
  }, async (victim) => {
    shim.set({ holdFsync: true, suffix: "-wal" });
    try {
      await attack(victim, shim);
    } finally {
      shim.set({});
    }
  });
}

for (const [name, body, requests] of WRITES) {
  Deno.test(`while an fsync hangs: ${name}`, () =>
    whileFsyncHangs(name, async ({ server, neighbour }, shim) => {
      await using attack = await Attack.start("calls", server.port, {
        connections: 10,
        atOnce: requests / 10,
        call: "atomic_write",
        body: body.toBase64(),
        requests,
      });
      await shim.until((counts) => counts.fsyncsHeld > 0);
      await neighbour.goRounds(200);
      shim.set({});
      const { 200: done = 0, 503: refused = 0, ...others } = await attack.end();
      assert.deepEqual(others, {});
      assert.equal(done + refused, requests);
      assert.ok(done > 0, "not one was taken");
    }));
}

Deno.test("while an fsync hangs, readiness says so, and no more when it is over", () =>
  whileFsyncHangs("readiness", async ({ server }, shim) => {
    const status = async () => {
      const answer = await fetch(`${server.url}/-/ready`);
      await answer.body?.cancel();
      return answer.status;
    };
    await using attack = await Attack.start("calls", server.port, {
      connections: 1,
      atOnce: 1,
      call: "atomic_write",
      body: encodeWrite(atomic([set("a", "1")])).toBase64(),
      requests: 1,
    });
    await until("that it is not ready", async () => await status() === 503);
    shim.set({});
    await until("that it is ready", async () => await status() === 200);
    await attack.end();
  }));
