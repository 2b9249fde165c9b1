import assert from "node:assert/strict";
import { type Bytes, byteString, fromUtf8, utf8 } from "../common/bytes.ts";
import { decodeKey, encodeKey } from "../protocol/key.ts";
import {
  type AtomicWrite,
  type Check,
  Encoding,
  type Mutation,
  MutationType,
  NEVER_MS,
} from "../protocol/messages.ts";
import { MAX_SUM_BIGINT_BYTES } from "../protocol/limits.ts";
import { decodeV8Number, encodeV8Number } from "../protocol/v8_number.ts";
import { ABSENT_VERSION } from "../protocol/versionstamp.ts";
import {
  type Effect,
  evaluate,
  type Evaluation,
  type Row,
} from "./evaluate.ts";

const A = encodeKey(["a"]);
const B = encodeKey(["b"]);
const VERSION = 0x0102;
const ORDER = 3;
const NOW_MS = 50;

function le64(value: bigint): Bytes {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, value, true);
  return out;
}

function row(value: number | bigint | Bytes, more: Partial<Row> = {}): Row {
  return {
    value: value instanceof Uint8Array ? value : encodeV8Number(value),
    encoding: value instanceof Uint8Array ? Encoding.BYTES : Encoding.V8,
    version: 7,
    order: 0,
    expireAtMs: NEVER_MS,
    ...more,
  };
}

const u64Row = (value: bigint) => row(le64(value), { encoding: Encoding.LE64 });

function mutation(type: MutationType, more: Partial<Mutation> = {}): Mutation {
  return {
    type,
    key: A,
    value: utf8("v"),
    encoding: Encoding.BYTES,
    expireAtMs: NEVER_MS,
    sumMin: null,
    sumMax: null,
    sumClamp: false,
    ...more,
  };
}

const u64 = (type: MutationType, value: bigint, more: Partial<Mutation> = {}) =>
  mutation(type, { value: le64(value), encoding: Encoding.LE64, ...more });

function sum(
  value: number | bigint,
  bounds: { min?: number | bigint; max?: number | bigint; clamp?: boolean } =
    {},
): Mutation {
  return mutation(MutationType.SUM, {
    value: encodeV8Number(value),
    encoding: Encoding.V8,
    sumMin: bounds.min === undefined ? null : encodeV8Number(bounds.min),
    sumMax: bounds.max === undefined ? null : encodeV8Number(bounds.max),
    sumClamp: bounds.clamp ?? false,
  });
}

function run(
  mutations: Mutation[],
  stored: Record<string, Row> = {},
  checks: Check[] = [],
): Evaluation {
  const rows = new Map(
    Object.entries(stored).map(([name, value]) => [
      byteString(encodeKey([name])),
      value,
    ]),
  );
  const write: AtomicWrite = { checks, mutations, enqueues: [] };
  return evaluate(
    write,
    VERSION,
    ORDER,
    NOW_MS,
    (key) => rows.get(byteString(key)),
  );
}

function effects(evaluation: Evaluation): Effect[] {
  assert.equal(evaluation.status, "ok");
  return (evaluation as { effects: Effect[] }).effects;
}

/** Why the write is refused. */
function message(mutations: Mutation[], stored?: Row): string {
  const result = run(mutations, stored && { a: stored });
  assert.ok(result.status === "refused", result.status);
  return result.message;
}

/** The value after the last mutation, as a number, or "refused". */
function after(mutations: Mutation[], stored?: Row): unknown {
  const result = run(mutations, stored && { a: stored });
  if (result.status === "refused") {
    assert.match(result.message, /nothing of the write was applied\.$/);
    return "refused";
  }
  const last = effects(result).at(-1)!;
  if (last.encoding === Encoding.LE64) {
    const value = new DataView(last.value!.buffer, last.value!.byteOffset, 8)
      .getBigUint64(0, true);
    return `u64 ${value}`;
  }
  assert.equal(last.encoding, Encoding.V8);
  return decodeV8Number(last.value!);
}

Deno.test("set and delete give one effect each, in order", () => {
  const got = effects(run([
    mutation(MutationType.SET, { expireAtMs: 99 }),
    mutation(MutationType.DELETE, { key: B }),
    mutation(MutationType.SET, { value: utf8("w") }),
  ]));
  assert.deepEqual(
    got.map(({ key, value }) => [key, value && fromUtf8(value)]),
    [
      [A, "v"],
      [B, null],
      [A, "w"],
    ],
  );
  assert.deepEqual(got.map((effect) => effect.expireAtMs), [
    99,
    NEVER_MS,
    NEVER_MS,
  ]);
});

Deno.test("a versionstamp is appended to the key as 0x02, 20 lowercase hex digits, 0x00", () => {
  const [effect] = effects(
    run([mutation(MutationType.SET_SUFFIX_VERSIONSTAMPED_KEY)]),
  );
  const hex = "026100" + "02" + utf8("00000000000001020003").toHex() + "00";
  assert.equal(effect.key.toHex(), hex);
  assert.deepEqual(effect.key, encodeKey(["a", "00000000000001020003"]));
  const [bare] = effects(run([
    mutation(MutationType.SET_SUFFIX_VERSIONSTAMPED_KEY, {
      key: new Uint8Array(0),
    }),
  ]));
  assert.deepEqual(bare.key, encodeKey(["00000000000001020003"]));
});

Deno.test("every failed check is named, and a failed check leaves no effect", () => {
  const stored = { a: row(1, { version: 5, order: 1 }) };
  const check = (key: Bytes, version: number, order = 0): Check => ({
    key,
    version,
    order,
  });
  const failed = (...checks: Check[]) => {
    const result = run([mutation(MutationType.SET)], stored, checks);
    return result.status === "checkFailed"
      ? result.failedChecks
      : result.status;
  };
  assert.equal(failed(check(A, 5, 1), check(B, ABSENT_VERSION)), "ok");
  assert.deepEqual(failed(check(A, 5, 2)), [0]);
  assert.deepEqual(failed(check(A, 4, 1)), [0]);
  assert.deepEqual(failed(check(A, ABSENT_VERSION)), [0]);
  assert.deepEqual(failed(check(B, 0)), [0]);
  assert.deepEqual(
    failed(check(B, 5), check(A, 5, 1), check(A, 6), check(B, ABSENT_VERSION)),
    [0, 2],
  );
});

Deno.test("checks do not read values, which may be 64 KiB each", () => {
  const write: AtomicWrite = {
    checks: [{ key: A, version: 5, order: 0 }],
    mutations: [],
    enqueues: [],
  };
  const result = evaluate(
    write,
    VERSION,
    ORDER,
    NOW_MS,
    () => assert.fail("a value was read"),
    () => ({ version: 5, order: 0, expireAtMs: NEVER_MS }),
  );
  assert.equal(result.status, "ok");
});

Deno.test("a check that fails comes before a sum that cannot be", () => {
  const result = run([sum(1n)], { a: row(1) }, [
    { key: A, version: 99, order: 0 },
  ]);
  assert.deepEqual(result, { status: "checkFailed", failedChecks: [0] });
});

Deno.test("checks see the data as it was before the write", () => {
  const result = run(
    [mutation(MutationType.SET), mutation(MutationType.DELETE)],
    {},
    [{ key: A, version: ABSENT_VERSION, order: 0 }],
  );
  assert.equal(result.status, "ok");
});

Deno.test("sum, min and max of KvU64", () => {
  const { SUM, MIN, MAX } = MutationType;
  const top = 2n ** 64n - 1n;
  assert.equal(after([u64(SUM, 5n)]), "u64 5");
  assert.equal(after([u64(MIN, 5n)]), "u64 5");
  assert.equal(after([u64(MAX, 5n)]), "u64 5");
  assert.equal(after([u64(SUM, 5n)], u64Row(3n)), "u64 8");
  assert.equal(after([u64(SUM, 1n)], u64Row(top)), "u64 0");
  assert.equal(after([u64(SUM, top)], u64Row(top)), `u64 ${top - 1n}`);
  assert.equal(after([u64(MIN, 5n)], u64Row(3n)), "u64 3");
  assert.equal(after([u64(MIN, 2n)], u64Row(3n)), "u64 2");
  assert.equal(after([u64(MAX, 5n)], u64Row(3n)), "u64 5");
  // As unsigned numbers, not signed and not byte by byte.
  assert.equal(after([u64(MAX, 1n)], u64Row(2n ** 63n)), `u64 ${2n ** 63n}`);
  assert.equal(after([u64(MIN, 256n)], u64Row(255n)), "u64 255");
});

Deno.test("KvU64 against any other kind is refused", () => {
  for (
    const type of [MutationType.SUM, MutationType.MIN, MutationType.MAX]
  ) {
    for (const stored of [row(1), row(1n), row(utf8("12345678"))]) {
      assert.equal(after([u64(type, 1n)], stored), "refused");
    }
  }
});

Deno.test("sum of numbers and of bigints, in every form V8 may write", () => {
  assert.equal(after([sum(1.5)], row(2)), 3.5);
  assert.equal(after([sum(-3)], row(2)), -1);
  assert.equal(after([sum(1)], row(2 ** 31 - 1)), 2 ** 31);
  assert.equal(after([sum(1)], row(2 ** 32 - 1)), 2 ** 32);
  assert.equal(after([sum(7)]), 7);
  assert.equal(after([sum(7n)]), 7n);
  assert.equal(after([sum(-1n)], row(2n ** 64n)), 2n ** 64n - 1n);
  assert.equal(after([sum(1n)], row(2n ** 64n - 1n)), 2n ** 64n);
  assert.equal(after([sum(-5n)], row(5n)), 0n);
  const uint32 = Uint8Array.fromHex("ff0f5505");
  const stored = row(uint32, { encoding: Encoding.V8 });
  assert.equal(after([sum(0.5)], stored), 5.5);
});

Deno.test("a sum of unlike kinds is refused", () => {
  const text = Uint8Array.fromHex("ff0f220131");
  assert.equal(after([sum(1)], row(1n)), "refused");
  assert.equal(after([sum(1n)], row(1)), "refused");
  assert.equal(
    after([sum(1)], row(text, { encoding: Encoding.V8 })),
    "refused",
  );
  assert.equal(after([sum(1)], row(encodeV8Number(1))), "refused"); // as bytes
  assert.equal(after([sum(1)], u64Row(1n)), "refused");
  assert.equal(after([sum(1, { min: 0n })], row(1)), "refused");
  assert.equal(after([sum(1n, { max: 5 })], row(1n)), "refused");
  assert.equal(after([sum(1n, { max: 5 })]), "refused");
});

Deno.test("a stored KvU64 sums with a bigint from 0 to 2^64-1 without bounds, as a KvU64", () => {
  const top = 2n ** 64n - 1n;
  assert.equal(after([sum(5n)], u64Row(3n)), "u64 8");
  assert.equal(after([sum(top)], u64Row(1n)), "u64 0");
  assert.equal(after([sum(0n)], u64Row(3n)), "u64 3");
  assert.equal(after([sum(-1n)], u64Row(3n)), "refused");
  assert.equal(after([sum(top + 1n)], u64Row(3n)), "refused");
  assert.equal(after([sum(1n, { max: 9n })], u64Row(3n)), "refused");
  assert.equal(after([sum(1n, { min: 0n })], u64Row(3n)), "refused");
});

Deno.test("bounds of a sum: inclusive, refused beyond, or clamped, also where the key is absent", () => {
  assert.equal(after([sum(1, { min: 0, max: 10 })], row(9)), 10);
  assert.equal(after([sum(2, { max: 10 })], row(9)), "refused");
  assert.equal(after([sum(2, { max: 10, clamp: true })], row(9)), 10);
  assert.equal(after([sum(-2, { min: 0 })], row(1)), "refused");
  assert.equal(after([sum(-2, { min: 0, clamp: true })], row(1)), 0);
  assert.equal(after([sum(11, { max: 10 })]), "refused");
  assert.equal(after([sum(11, { max: 10, clamp: true })]), 10);
  assert.equal(after([sum(-1n, { min: 5n, clamp: true })]), 5n);
  assert.equal(after([sum(1n, { min: 5n })]), "refused");
  // Already outside: the sum decides, not what was stored.
  assert.equal(after([sum(-5, { max: 10 })], row(12)), 7);
});

Deno.test("what was done to a key earlier in the same write is seen by its sums", () => {
  const { SET, DELETE, SUM } = MutationType;
  const set = mutation(SET, {
    value: encodeV8Number(5),
    encoding: Encoding.V8,
    expireAtMs: 77,
  });
  assert.equal(after([set, sum(2), sum(3)], row(100)), 10);
  assert.equal(after([mutation(DELETE), sum(2)], row(100)), 2);
  assert.equal(after([sum(2), mutation(DELETE), sum(3)], row(100)), 3);
  assert.equal(after([mutation(SET), sum(2)], row(100)), "refused");
  assert.equal(after([u64(SUM, 1n), u64(SUM, 2n)], u64Row(10n)), "u64 13");
  const other = mutation(SET, { key: B });
  assert.equal(after([other, sum(2)], row(100)), 102);
  const summed = effects(run([set, sum(2)])).at(-1)!;
  assert.equal(summed.expireAtMs, 77);
});

Deno.test("a sum keeps the key's expiry unless it names one itself", () => {
  const expiry = (change: Mutation, stored: Row) =>
    effects(run([change], { a: stored }))[0].expireAtMs;
  const expiring = row(1, { expireAtMs: 500 });
  assert.equal(expiry(sum(1), expiring), 500);
  assert.equal(expiry({ ...sum(1), expireAtMs: 900 }, expiring), 900);
  assert.equal(expiry({ ...sum(1), expireAtMs: 900 }, row(1)), 900);
  assert.equal(expiry(sum(1), row(1)), NEVER_MS);
  assert.equal(
    expiry(u64(MutationType.MAX, 1n), { ...u64Row(2n), expireAtMs: 500 }),
    500,
  );
});

Deno.test("a set replaces the key's expiry", () => {
  const [effect] = effects(
    run([mutation(MutationType.SET)], { a: row(1, { expireAtMs: 500 }) }),
  );
  assert.equal(effect.expireAtMs, NEVER_MS);
});

Deno.test("one impossible mutation refuses the whole write, whatever came before it", () => {
  const result = run([
    mutation(MutationType.SET, { key: B }),
    mutation(MutationType.DELETE, { key: B }),
    sum(1n),
    mutation(MutationType.SET, { key: B }),
  ], { a: row(1) });
  assert.equal(result.status, "refused");
  assert.deepEqual(Object.keys(result).sort(), ["message", "status"]);
});

Deno.test("what this very write set past its expiry is absent for its sum", () => {
  const set = (expireAtMs: number) =>
    mutation(MutationType.SET, {
      value: encodeV8Number(5),
      encoding: Encoding.V8,
      expireAtMs,
    });
  assert.equal(after([set(NOW_MS), sum(1)]), 1);
  assert.equal(after([set(NOW_MS + 1), sum(1)]), 6);
});

Deno.test("a sum of bigints has a limit of its own: operand, stored value and result", () => {
  const bits = 8n * BigInt(MAX_SUM_BIGINT_BYTES);
  const largest = (1n << bits) - 1n;
  assert.equal(after([sum(largest)]), largest);
  assert.equal(after([sum(-largest)]), -largest);
  assert.equal(after([sum(0n)], row(largest)), largest);
  assert.equal(after([sum(-largest)], row(largest)), 0n);
  const over = /^The bigints of a sum .* at most 1024 bytes/;
  assert.match(message([sum(1n)], row(largest)), over);
  assert.match(message([sum(-1n)], row(-largest)), over);
  assert.match(message([sum(-1n)], row(largest + 1n)), over);
  assert.match(message([sum(largest), sum(1n), sum(-1n)]), over);
  // One that fills a value is not even made.
  const stored = row(Uint8Array.fromHex("ff0f5a80e007" + "11".repeat(63_488)), {
    encoding: Encoding.V8,
  });
  const original = globalThis.BigInt;
  globalThis.BigInt = new Proxy(original, {
    apply: (target, _self, [from]) => {
      assert.ok(String(from).length < 100, "a vast bigint was made");
      return target(from);
    },
  });
  try {
    assert.match(message([sum(1n)], stored), over);
  } finally {
    globalThis.BigInt = original;
  }
});

Deno.test("a refused sum says first what the Rust server says, and then what to make of it", () => {
  const { SUM, MIN, MAX } = MutationType;
  const text = row(Uint8Array.fromHex("ff0f220131"), { encoding: Encoding.V8 });
  const cases: [Mutation, Row | undefined, string][] = [
    [
      u64(SUM, 1n),
      row(1),
      "Failed to perform 'sum' mutation on a non-U64 value in the database",
    ],
    [
      u64(MIN, 1n),
      row(utf8("x")),
      "Failed to perform 'min' mutation on a non-U64 value in the database",
    ],
    [
      u64(MAX, 1n),
      row(1n),
      "Failed to perform 'max' mutation on a non-U64 value in the database",
    ],
    [sum(1), u64Row(1n), "Cannot sum KvU64 with Number"],
    [sum(-1n), u64Row(1n), "Cannot sum KvU64 with BigInt"],
    [sum(1n, { max: 3n }), u64Row(1n), "Cannot sum KvU64 with BigInt"],
    [sum(1), row(1n), "Cannot sum BigInt with Number"],
    [sum(1n), row(1), "Cannot sum Number with BigInt"],
    [sum(1), text, "unsupported value type"],
    [sum(1n), row(utf8("x")), "unsupported value type"],
    [
      sum(1, { min: 0n }),
      undefined,
      "Min/max parameters have different types than the operand",
    ],
    [
      sum(5, { max: 4 }),
      undefined,
      "The result of a Sum operation would exceed its range limit",
    ],
    [
      sum(-5n, { min: 0n }),
      row(1n),
      "The result of a Sum operation would exceed its range limit",
    ],
  ];
  for (const [mutation, stored, words] of cases) {
    const said = message([mutation], stored);
    assert.ok(said.startsWith(`${words}: `), said);
    assert.match(said, /; nothing of the write was applied\.$/);
  }
});

Deno.test("what sums, minima and maxima do to a key is one effect, in its place", () => {
  const { SET, DELETE, SUM, MIN, MAX } = MutationType;
  const named = (change: Mutation, key: Bytes) => ({ ...change, key });
  const setTo = (value: number, expireAtMs = NEVER_MS) =>
    mutation(SET, {
      value: encodeV8Number(value),
      encoding: Encoding.V8,
      expireAtMs,
    });
  const shown = (mutations: Mutation[], stored?: Row) =>
    effects(run(mutations, stored && { a: stored })).map((effect) => {
      const { key, value, encoding, expireAtMs } = effect;
      const name = decodeKey(key)![0];
      const shown = value === null
        ? "gone"
        : encoding === Encoding.LE64
        ? `u${value[0]}`
        : `${decodeV8Number(value)}`;
      return `${name}=${shown}${
        expireAtMs === NEVER_MS ? "" : `@${expireAtMs}`
      }`;
    });
  assert.deepEqual(shown([sum(1), sum(2), sum(3)], row(10)), ["a=16"]);
  assert.deepEqual(shown([sum(1), named(sum(5), B), sum(2)], row(10)), [
    "a=13",
    "b=5",
  ]);
  assert.deepEqual(
    shown([u64(SUM, 9n), u64(MIN, 4n), u64(MAX, 6n), u64(SUM, 1n)]),
    ["a=u7"],
  );
  // What the write does to the key between them, or after them, counts.
  assert.deepEqual(shown([sum(1), setTo(7), sum(1)], row(10)), ["a=8"]);
  assert.deepEqual(shown([sum(1), setTo(7)], row(10)), ["a=7"]);
  assert.deepEqual(shown([sum(1), mutation(DELETE)], row(10)), ["a=gone"]);
  assert.deepEqual(shown([mutation(DELETE), sum(1)], row(10)), ["a=1"]);
  assert.deepEqual(
    shown([setTo(1), setTo(2), named(setTo(3), B), sum(1), setTo(9), sum(1)]),
    ["a=1", "a=10", "b=3"],
  );
  // The expiry of the last that named one; what has expired is absent.
  const dated = (change: Mutation, expireAtMs: number) => ({
    ...change,
    expireAtMs,
  });
  assert.deepEqual(shown([dated(sum(1), 90), sum(1)], row(1)), ["a=3@90"]);
  assert.deepEqual(shown([sum(1), dated(sum(1), 90)], row(1)), ["a=3@90"]);
  assert.deepEqual(shown([dated(sum(1), NOW_MS), sum(5)], row(1)), ["a=5"]);
  assert.deepEqual(shown([setTo(4, NOW_MS), sum(5), sum(1)]), ["a=6"]);
  assert.deepEqual(
    shown([sum(1), mutation(DELETE), sum(2)], row(1, { expireAtMs: 90 })),
    ["a=2"],
  );
  // A kind may change only with what is stored.
  assert.equal(run([sum(1), u64(SUM, 1n)]).status, "refused");
  assert.equal(run([sum(1), mutation(DELETE), u64(SUM, 1n)]).status, "ok");
});

Deno.test("a sum sees a versionstamped key that the write made", () => {
  const suffixed = mutation(MutationType.SET_SUFFIX_VERSIONSTAMPED_KEY, {
    value: le64(5n),
    encoding: Encoding.LE64,
  });
  const key = encodeKey(["a", "00000000000001020003"]);
  const got = effects(run([
    suffixed,
    u64(MutationType.SUM, 2n, { key }),
    suffixed,
    u64(MutationType.SUM, 1n, { key }),
  ]));
  assert.deepEqual(got.map((effect) => [effect.key, effect.value]), [
    [key, le64(6n)],
  ]);
});

Deno.test("a thousand sums of the largest bigints decode what is stored once, and encode once", () => {
  const largest = 1n << BigInt(8 * MAX_SUM_BIGINT_BYTES - 20);
  const stored = row(largest);
  let made = 0;
  const original = globalThis.BigInt;
  globalThis.BigInt = new Proxy(original, {
    apply: (target, _self, [from]) => {
      if (String(from).length > 2000) made++;
      return target(from);
    },
  });
  try {
    const mutations = new Array(1000).fill(sum(1n));
    const result = run(mutations, { a: stored });
    assert.equal(effects(result).length, 1);
    assert.equal(decodeV8Number(effects(result)[0].value!), largest + 1000n);
  } finally {
    globalThis.BigInt = original;
  }
  // The stored one, and the one of this test.
  assert.equal(made, 2);
});

Deno.test("what a write produces is counted by its effects, not by what was sent", () => {
  const produced = (mutations: Mutation[], stored?: Row) => {
    const result = run(mutations, stored && { a: stored });
    assert.ok(result.status === "ok");
    return result.producedBytes;
  };
  const { SET, DELETE } = MutationType;
  assert.equal(produced([]), 0);
  assert.equal(produced([mutation(SET)]), A.length + 1);
  assert.equal(produced([mutation(SET), mutation(SET)]), 2 * (A.length + 1));
  assert.equal(produced([mutation(DELETE)]), A.length);
  const largest = row(1n << 8000n);
  const size = A.length + largest.value.length;
  assert.equal(produced([sum(1n)], largest), size);
  assert.equal(produced(new Array(1000).fill(sum(1n)), largest), size);
});

Deno.test("enqueues are passed on as they are", () => {
  const enqueue = {
    payload: encodeV8Number(1),
    deadlineMs: 5,
    keysIfUndelivered: [A],
    backoffScheduleMs: [1],
  };
  const result = evaluate(
    { checks: [], mutations: [], enqueues: [enqueue] },
    VERSION,
    ORDER,
    NOW_MS,
    () => undefined,
  );
  assert.deepEqual(result, {
    status: "ok",
    effects: [],
    enqueues: [enqueue],
    producedBytes: enqueue.payload.length + A.length,
  });
});
