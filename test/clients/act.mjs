/** What a client program is told to do, by its arguments. */
import assert from "node:assert/strict";
import { readOther, walk } from "./walk.mjs";

/** @param args `walk <name>`, `read <name> <which>`, or `expect <key>
 * <text>`, `count <key> <times>`, `mismatch <key>`,
 *   `crowd <key> <watches>` */
export async function act(kv, KvU64, [what, name, more]) {
  if (what === "walk") await walk(kv, KvU64, name);
  else if (what === "read") await readOther(kv, KvU64, name, more);
  else if (what === "expect") {
    assert.equal((await kv.get([name])).value, more);
    await kv.set(["answer", more], `${more} answers`);
  } else if (what === "count") await count(kv, name, Number(more));
  else if (what === "mismatch") await mismatch(kv, KvU64, name);
  else if (what === "crowd") await crowd(kv, name, Number(more));
  else throw new Error(`what is "${what}"?`);
  console.log("done");
}

/** Adds 1 so many times, some at once. */
async function count(kv, name, times) {
  let left = times;
  await Promise.all(Array.from({ length: 16 }, async () => {
    while (left-- > 0) await kv.atomic().sum([name], 1n).commit();
  }));
}

/** Sums, minima and maxima of unlike kinds, as Deno's own tests ask for them. */
async function mismatch(kv, KvU64, name) {
  const key = [name];
  const u64 = new KvU64(1n);
  const cases = [
    [
      1,
      "sum",
      u64,
      "Failed to perform 'sum' mutation on a non-U64 value in the database",
    ],
    [
      1,
      "min",
      u64,
      "Failed to perform 'min' mutation on a non-U64 value in the database",
    ],
    [
      1,
      "max",
      u64,
      "Failed to perform 'max' mutation on a non-U64 value in the database",
    ],
    [u64, "sum", 1, "Cannot sum KvU64 with Number"],
    [u64, "min", 1, "Failed to perform 'min' mutation on a non-U64 operand"],
    [u64, "max", 1, "Failed to perform 'max' mutation on a non-U64 operand"],
    [2n, "sum", 1, "Cannot sum BigInt with Number"],
    ["text", "sum", 1n, "unsupported value type"],
  ];
  for (const [stored, type, value, words] of cases) {
    await kv.set(key, stored);
    await assert.rejects(
      async () => await kv.atomic().mutate({ key, type, value }).commit(),
      (error) => {
        assert.ok(error.message.includes(words), error.message);
        return true;
      },
    );
  }
}

/** More watches on one handle than it can carry: told so, and still able. */
async function crowd(kv, name, watches) {
  const readers = [];
  const refusals = [];
  for (let i = 0; i < watches; i++) {
    const reader = kv.watch([[name, i]]).getReader();
    try {
      await reader.read();
      readers.push(reader);
    } catch (error) {
      refusals.push(String(error));
    }
  }
  assert.ok(readers.length >= 50, `${readers.length} watches`);
  assert.ok(refusals.length >= 50, `${refusals.length} refusals`);
  for (const refusal of refusals) assert.match(refusal, /watch.*limit/is);
  await kv.set([name, 0], "still able");
  const { value } = await readers[0].read();
  assert.equal(value[0].value, "still able");
  await Promise.all(readers.map((reader) => reader.cancel()));
}
