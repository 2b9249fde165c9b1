/** What a client program is told to do, by its arguments. */
import assert from "node:assert/strict";
import { readOther, walk } from "./walk.mjs";

/** @param args `walk <name>`, `read <name> <which>`, or `expect <key>
 * <text>`, `count <key> <times>` */
export async function act(kv, KvU64, [what, name, more]) {
  if (what === "walk") await walk(kv, KvU64, name);
  else if (what === "read") await readOther(kv, KvU64, name, more);
  else if (what === "expect") {
    assert.equal((await kv.get([name])).value, more);
    await kv.set(["answer", more], `${more} answers`);
  } else if (what === "count") await count(kv, name, Number(more));
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
