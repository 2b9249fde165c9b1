import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { seededRandom } from "../common/random.ts";
import { decodeV8Number, encodeV8Number, v8NumberKind } from "./v8_number.ts";

const VALUES: (number | bigint)[] = [
  0,
  -0,
  1,
  -1,
  63,
  64,
  -64,
  -65,
  128,
  2 ** 30 - 1,
  2 ** 30,
  -(2 ** 30),
  -(2 ** 30) - 1,
  2 ** 31 - 1,
  2 ** 31,
  -(2 ** 31),
  2 ** 32 - 1,
  2 ** 53,
  -(2 ** 53),
  0.1,
  -0.5,
  Number.MIN_VALUE,
  Number.MAX_VALUE,
  Infinity,
  -Infinity,
  NaN,
  0n,
  1n,
  -1n,
  255n,
  256n,
  2n ** 63n,
  2n ** 64n - 1n,
  2n ** 64n,
  -(2n ** 64n),
  2n ** 1000n,
  -(2n ** 1000n) - 1n,
];

Deno.test("numbers have the bytes worked out by hand", () => {
  const known: [number | bigint, string][] = [
    [0, "ff0f4900"],
    [-1, "ff0f4901"],
    [1, "ff0f4902"],
    [64, "ff0f498001"],
    [-0, "ff0f4e0000000000000080"],
    [1.5, "ff0f4e000000000000f83f"],
    [0n, "ff0f5a00"],
    [1n, "ff0f5a100100000000000000"],
    [-258n, "ff0f5a110201000000000000"],
    [2n ** 64n, "ff0f5a2000000000000000000100000000000000"],
  ];
  for (const [value, hex] of known) {
    assert.equal(encodeV8Number(value).toHex(), hex);
  }
});

Deno.test("numbers come back (edges, and seeded random ones)", () => {
  const random = seededRandom(42);
  const values = [...VALUES];
  for (let i = 0; i < 1000; i++) {
    const bytes = random.bytes(8);
    const view = new DataView(bytes.buffer);
    values.push(view.getInt32(0), view.getUint32(0), view.getBigInt64(0));
    values.push(view.getFloat64(0), view.getBigInt64(0) ** 3n);
  }
  for (const value of values) {
    const decoded = decodeV8Number(encodeV8Number(value));
    assert.ok(Object.is(decoded, value), `${value} came back as ${decoded}`);
  }
});

Deno.test("every form in which V8 may write a number is read", () => {
  const forms: [string, number | bigint][] = [
    ["ff0d4902", 1], // older versions of the format
    ["ff104902", 1],
    ["ff0f5501", 1], // U: uint32
    ["ff0f55ffffffff0f", 2 ** 32 - 1],
    ["ff0f49ffffffff0f", -(2 ** 31)],
    ["ff0f49feffffff0f", 2 ** 31 - 1],
    ["ff0f004902", 1], // padding before the tag
    ["ff0f5a0205", 5n], // a bigint of one byte
    ["ff0f5a0305", -5n],
    ["ff0f5a01", 0n], // minus zero is zero
  ];
  for (const [hex, value] of forms) {
    const bytes = Uint8Array.fromHex(hex);
    assert.equal(decodeV8Number(bytes), value, hex);
    const kind = typeof value === "bigint" ? "BigInt" : "Number";
    assert.equal(v8NumberKind(bytes), kind, hex);
  }
});

Deno.test("anything else is no number", () => {
  const others = [
    "",
    "ff",
    "ff0f",
    "ff0f00", // padding alone
    "fe0f4902", // no header
    "ff114902", // a version that does not exist yet
    "ff0f49", // cut short
    "ff0f4980",
    "ff0f498080808080", // a varint without an end
    "ff0f490200", // a byte too many
    "ff0f4e00000000000000",
    "ff0f4e000000000000000000",
    "ff0f5a",
    "ff0f5a10ff",
    "ff0f5a0205ff",
    "ff0f54", // true
    "ff0f30", // null
    "ff0f5f", // undefined
    "ff0f220131", // the string "1"
    "ff0f6e000000000000f03f", // new Number(1)
    "ff0f7a0205", // Object(5n)
    "ff0f44000000000000f03f", // a date
  ];
  for (const hex of others) {
    assert.equal(decodeV8Number(Uint8Array.fromHex(hex)), undefined, hex);
    assert.equal(v8NumberKind(Uint8Array.fromHex(hex)), undefined, hex);
  }
});

Deno.test("Deno's own KV reads our numbers, and we read those it writes", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const path = `${folder}/embedded.sqlite`;
    const kv = await Deno.openKv(path);
    for (let i = 0; i < VALUES.length; i++) await kv.set([i], VALUES[i]);
    kv.close();

    const db = new DatabaseSync(path);
    const rows = db.prepare("select v from kv order by k").all();
    rows.forEach((row, i) => {
      const decoded = decodeV8Number(row.v as Uint8Array);
      assert.ok(Object.is(decoded, VALUES[i]), `${VALUES[i]}: ${decoded}`);
    });
    const keys = db.prepare("select k from kv order by k").all();
    const update = db.prepare("update kv set v = ? where k = ?");
    keys.forEach((row, i) => update.run(encodeV8Number(VALUES[i]), row.k));
    db.close();

    const again = await Deno.openKv(path);
    for (let i = 0; i < VALUES.length; i++) {
      const { value } = await again.get([i]);
      assert.ok(Object.is(value, VALUES[i]), `${VALUES[i]}: ${value}`);
    }
    again.close();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
