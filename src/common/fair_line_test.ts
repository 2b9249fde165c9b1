import assert from "node:assert/strict";
import { FairLine } from "./fair_line.ts";

Deno.test("whoever has many waiting takes turns with the others", () => {
  const line = new FairLine<string>();
  for (const item of ["a1", "a2", "a3", "b1", "c1", "c2"]) {
    line.push(item[0], item);
  }
  assert.equal(line.size, 6);
  assert.equal(line.peek(), "a1");
  const order = [];
  for (let i = 0; i < 3; i++) order.push(line.shift());
  line.push("d", "d1");
  while (line.size > 0) order.push(line.shift());
  assert.deepEqual(order, ["a1", "b1", "c1", "a2", "c2", "d1", "a3"]);
  assert.equal(line.shift(), undefined);
  assert.equal(line.peek(), undefined);
});

Deno.test("one that waits no longer is taken out, once", () => {
  const line = new FairLine<string>();
  line.push("a", "a1");
  line.push("a", "a2");
  line.push("b", "b1");
  line.remove("a", "a1");
  line.remove("a", "a1");
  line.remove("z", "z1");
  line.remove("b", "b1");
  assert.equal(line.size, 1);
  assert.equal(line.shift(), "a2");
  assert.equal(line.size, 0);
});
