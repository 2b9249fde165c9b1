/** What a client program is told to do, by its arguments. */
import assert from "node:assert/strict";
import { readOther, walk } from "./walk.mjs";

/** @param args `walk <name>`, `read <name> <which>`, or `expect <key>
 * <text>`, `count <key> <times>`,
 *   `crowd <key> <watches>` */
export async function act(kv, KvU64, [what, name, more]) {
  if (what === "walk") await walk(kv, KvU64, name);
  else if (what === "read") await readOther(kv, KvU64, name, more);
  else if (what === "expect") {
    assert.equal((await kv.get([name])).value, more);
    await kv.set(["answer", more], `${more} answers`);
  } else if (what === "count") await count(kv, name, Number(more));
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
