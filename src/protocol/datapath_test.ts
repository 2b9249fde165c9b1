import assert from "node:assert/strict";
import { type Bytes, concatBytes } from "../common/bytes.ts";
import { InvalidRequestError, TooLargeError } from "../common/errors.ts";
import { seededRandom } from "../common/random.ts";
import { MAX_MESSAGE_FIELDS, MAX_SUM_BIGINT_BYTES } from "./limits.ts";
import {
  decodeAtomicWrite,
  decodeSnapshotRead,
  decodeWatch,
} from "./datapath.ts";
import { encodeKey } from "./key.ts";
import { MutationType, NEVER_MS } from "./messages.ts";
import { encodeV8Number } from "./v8_number.ts";

// A second, plain encoder: the decoder is not tested against itself.
type Field = [number: number, value: number | bigint | Uint8Array];

function varint(value: bigint): number[] {
  const out: number[] = [];
  let rest = BigInt.asUintN(64, value);
  while (rest >= 0x80n) {
    out.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  return [...out, Number(rest)];
}

function message(...fields: Field[]): Bytes {
  return concatBytes(fields.map(([number, value]) => {
    if (value instanceof Uint8Array) {
      const head = [number * 8 + 2, ...varint(BigInt(value.length))];
      return concatBytes([new Uint8Array(head), value]);
    }
    return new Uint8Array([number * 8, ...varint(BigInt(value))]);
  }));
}

const key = (...parts: (string | Uint8Array)[]) => encodeKey(parts);
/** A valid key of exactly so many bytes. */
const keyOf = (length: number) => encodeKey(["k".repeat(length - 2)]);
const zeros = (length: number) => new Uint8Array(length);
const NOW_MS = 1_700_000_000_000;

const range = (start: Uint8Array, end: Uint8Array, limit: number) =>
  message([1, start], [2, end], [3, limit]);
const set = (at: Uint8Array, data: Uint8Array, encoding = 3) =>
  message([1, at], [2, message([1, data], [2, encoding])], [3, 1]);
const write = (...mutations: Bytes[]) =>
  decodeAtomicWrite(
    message(...mutations.map((mutation): Field => [2, mutation])),
    NOW_MS,
  );

function refused(
  attempt: () => unknown,
  says: RegExp,
  kind: typeof InvalidRequestError | typeof TooLargeError = TooLargeError,
): void {
  assert.throws(attempt, (error) => {
    assert.ok(error instanceof kind, String(error));
    assert.match(error.message, says);
    assert.match(error.message, /^[A-Za-z].*\.$/, "is a sentence");
    return true;
  });
}

Deno.test("a read is decoded as it was asked", () => {
  const [start, end] = [key("a"), key("b")];
  const ranges = decodeSnapshotRead(message(
    [1, message([1, start], [2, end], [3, 7], [4, 1])],
    [9, 5], // unknown fields are passed over
    [1, range(start, concatBytes([start, zeros(1)]), 1)],
  ));
  assert.deepEqual(ranges, [
    { start, end, limit: 7, reverse: true, isPoint: false },
    {
      start,
      end: concatBytes([start, zeros(1)]),
      limit: 1,
      reverse: false,
      isPoint: true,
    },
  ]);
});

Deno.test("only a range of one possible key is a point read", () => {
  const start = key("a");
  const others = [
    concatBytes([start, new Uint8Array([1])]),
    concatBytes([start, zeros(2)]),
    concatBytes([start, new Uint8Array([0xff])]), // @deno/kv's point read
    start,
    key("b"),
  ];
  for (const end of others) {
    const [got] = decodeSnapshotRead(message([1, range(start, end, 1)]));
    assert.equal(got.isPoint, false);
  }
});

Deno.test("limit: ranges, entries and bounds of a read, at the limit and one beyond", () => {
  const some = (count: number, limit: number) =>
    decodeSnapshotRead(message(
      ...Array.from(
        { length: count },
        (): Field => [1, range(key("a"), key("b"), limit)],
      ),
    ));
  assert.equal(some(10, 100).length, 10);
  refused(() => some(11, 1), /10 ranges/);
  assert.equal(some(1, 1000)[0].limit, 1000);
  refused(() => some(1, 1001), /1000 entries/);
  refused(() => some(10, 101), /1000 entries.*1010/);
  refused(() => some(1, 0), /at least 1/, InvalidRequestError);
  refused(() => some(1, -1), /at least 1/, InvalidRequestError);
  refused(() => some(2, -(2 ** 31)), /at least 1/, InvalidRequestError);

  const bounds = (start: number, end: number) =>
    decodeSnapshotRead(message([1, range(zeros(start), zeros(end), 1)]));
  assert.equal(bounds(2049, 2049).length, 1);
  refused(() => bounds(2050, 1), /2049 bytes/);
  refused(() => bounds(1, 2050), /2049 bytes/);
});

Deno.test("a range never reaches the server's own keys under 0xFF", () => {
  const ends = ["ff", "ff00", "ff61", "ffff"];
  for (const end of ends) {
    const [got] = decodeSnapshotRead(
      message([1, range(zeros(1), Uint8Array.fromHex(end), 1)]),
    );
    assert.deepEqual(got.end, new Uint8Array([0xff]));
  }
  const reserved = Uint8Array.fromHex("ff00");
  refused(
    () => decodeSnapshotRead(message([1, range(reserved, reserved, 1)])),
    /0xFF/,
    InvalidRequestError,
  );
  refused(() => write(set(reserved, zeros(1))), /0xFF/, InvalidRequestError);
  refused(
    () => decodeWatch(message([1, message([1, reserved])])),
    /0xFF/,
    InvalidRequestError,
  );
  refused(
    () => decodeAtomicWrite(message([1, message([1, reserved])]), NOW_MS),
    /0xFF/,
    InvalidRequestError,
  );
  const suffixed = message([1, reserved], [2, message([2, 3])], [3, 9]);
  refused(() => write(suffixed), /0xFF/, InvalidRequestError);
});

Deno.test("an atomic write that waits keeps no more of its body than twice what it needs", () => {
  const fields: [number, Bytes][] = [
    [1, message([1, key("checked")])],
    [2, message([1, key("set")], [2, message([1, zeros(5)], [2, 3])], [3, 1])],
    [2, message([1, key("gone")], [3, 2])],
    [3, message([1, zeros(3)], [3, key("undelivered")])],
  ];
  const small = message(...fields);
  const got = decodeAtomicWrite(small, NOW_MS);
  assert.equal(got.heldBytes, small.length);
  assert.equal(got.mutations[0].key.buffer, small.buffer, "no copy is made");

  // A field that nobody knows, and room that a buffer has to spare.
  const padded = message(...fields, [15, zeros(100_000)]);
  const roomy = new Uint8Array(100_000);
  roomy.set(small);
  for (const body of [padded, roomy.subarray(0, small.length)]) {
    const copied = decodeAtomicWrite(body, NOW_MS);
    assert.deepEqual({ ...copied, heldBytes: 0 }, { ...got, heldBytes: 0 });
    assert.ok(copied.heldBytes! < small.length, `${copied.heldBytes}`);
    const views = [
      copied.checks[0].key,
      ...copied.mutations.flatMap(({ key, value }) => [key, value]),
      copied.enqueues[0].payload,
      copied.enqueues[0].keysIfUndelivered[0],
    ];
    for (const view of views) assert.notEqual(view.buffer, body.buffer);
  }
});

Deno.test("an atomic write is decoded as it was asked", () => {
  const at = key("a");
  const got = decodeAtomicWrite(
    message(
      [1, message([1, at])],
      [1, message([1, at], [2, Uint8Array.fromHex("00000000000001020003")])],
      [
        2,
        message([1, at], [2, message([1, zeros(2)], [2, 3])], [3, 1], [4, 5]),
      ],
      [2, message([1, at], [3, 2])],
      [2, message([1, at], [2, zeros(0)], [3, 2])], // Deno sends it so
      [2, message([1, at], [2, message([1, zeros(8)], [2, 2])], [3, 3])],
      [3, message([1, zeros(3)], [2, NOW_MS], [3, at], [4, 100], [4, 200])],
      [3, message([1, zeros(3)], [4, new Uint8Array([100, 0xc8, 1])])],
    ),
    NOW_MS,
  );
  assert.deepEqual(got.checks, [
    { key: at, version: -1, order: 0 },
    { key: at, version: 258, order: 3 },
  ]);
  assert.deepEqual(got.mutations.map((mutation) => mutation.type), [
    1,
    2,
    2,
    3,
  ]);
  assert.equal(got.mutations[0].expireAtMs, 5);
  assert.equal(got.mutations[1].expireAtMs, NEVER_MS);
  assert.deepEqual(got.enqueues.map((enqueue) => enqueue.backoffScheduleMs), [
    [100, 200],
    [100, 200],
  ]);
  assert.deepEqual(got.enqueues[0].keysIfUndelivered, [at]);
  assert.equal(got.enqueues[0].deadlineMs, NOW_MS);
});

Deno.test("limit: checks, mutations and enqueues, at the limit and one beyond", () => {
  const at = key("a");
  const repeat = (count: number, field: Field) =>
    decodeAtomicWrite(
      message(...new Array<Field>(count).fill(field)),
      NOW_MS,
    );
  const check: Field = [1, message([1, at])];
  const mutation: Field = [2, set(at, zeros(1))];
  const enqueue: Field = [3, message([1, zeros(1)])];
  assert.equal(repeat(100, check).checks.length, 100);
  refused(() => repeat(101, check), /100 checks/);
  assert.equal(repeat(1000, mutation).mutations.length, 1000);
  refused(() => repeat(1001, mutation), /1000 mutations/);
  assert.equal(repeat(1000, enqueue).enqueues.length, 1000);
  refused(
    () =>
      decodeAtomicWrite(
        message(...new Array<Field>(1000).fill(mutation), enqueue),
        NOW_MS,
      ),
    /1000 mutations and enqueues/,
  );
});

Deno.test("limit: key and value sizes of a write, at the limit and one beyond", () => {
  assert.equal(write(set(keyOf(2048), zeros(65_536))).mutations.length, 1);
  refused(() => write(set(keyOf(2049), zeros(1))), /2048 bytes.*2049/);
  refused(() => write(set(key("a"), zeros(65_537))), /65536 bytes.*65537/);
  refused(() => write(set(zeros(0), zeros(1))), /empty/, InvalidRequestError);
  const check = (length: number) =>
    decodeAtomicWrite(message([1, message([1, keyOf(length)])]), NOW_MS);
  assert.equal(check(2048).checks.length, 1);
  refused(() => check(2049), /2048 bytes/);
  const watch = (length: number) =>
    decodeWatch(message([1, message([1, keyOf(length)])]));
  assert.equal(watch(2048).length, 1);
  refused(() => watch(2049), /2048 bytes/);
});

Deno.test("limit: the whole of an atomic write, at the limit and one beyond", () => {
  const sized = (last: number) => {
    // 12 × (48 + 65536) = 787008, and one of 48 + last.
    const mutations = Array.from(
      { length: 12 },
      () => set(keyOf(48), zeros(65_536)),
    );
    return write(...mutations, set(keyOf(48), zeros(last)));
  };
  const rest = 819_200 - 12 * (48 + 65_536) - 48;
  assert.equal(sized(rest).mutations.length, 13);
  refused(() => sized(rest + 1), /819200 bytes in all; this one has more/);
});

Deno.test("a versionstamped key leaves room for its suffix", () => {
  const suffixed = (at: Bytes) =>
    write(message([1, at], [2, message([1, zeros(1)], [2, 3])], [3, 9]));
  assert.equal(suffixed(zeros(0)).mutations.length, 1);
  assert.equal(suffixed(keyOf(2026)).mutations.length, 1);
  refused(() => suffixed(keyOf(2027)), /2026 bytes/);
});

Deno.test("keys that are no key encoding are refused", () => {
  for (const hex of ["00", "0261", "02ff00", "14ff", "7f"]) {
    refused(
      () => write(set(Uint8Array.fromHex(hex), zeros(1))),
      /not a valid encoding/,
      InvalidRequestError,
    );
  }
});

Deno.test("versionstamps of a check have 0 or 10 bytes", () => {
  for (const length of [1, 9, 11, 20]) {
    refused(
      () =>
        decodeAtomicWrite(
          message([1, message([1, key("a")], [2, zeros(length)])]),
          NOW_MS,
        ),
      /0 or 10 bytes/,
      InvalidRequestError,
    );
  }
});

Deno.test("values and operands have to be of a kind the mutation can take", () => {
  const mutation = (type: number, data: Uint8Array, encoding: number) =>
    write(
      message([1, key("a")], [2, message([1, data], [2, encoding])], [3, type]),
    );
  const invalid = (attempt: () => unknown, says: RegExp) =>
    refused(attempt, says, InvalidRequestError);
  const number = encodeV8Number(1);
  invalid(() => mutation(1, zeros(1), 0), /encoding 0/);
  invalid(() => mutation(1, zeros(1), 4), /encoding 4/);
  invalid(() => mutation(1, zeros(1), -1), /encoding -1/);
  invalid(() => mutation(1, zeros(7), 2), /8 bytes.*7/);
  invalid(() => mutation(1, zeros(9), 2), /8 bytes.*9/);
  for (const type of [0, 6, 7, 8, 10, 127, -1]) {
    invalid(() => mutation(type, zeros(1), 3), /mutation type/);
  }
  // The first words are those that programs and Deno's own tests match.
  const notV8 = /^Some of the parameters are not valid V8 values: sum takes/;
  invalid(() => mutation(3, zeros(8), 3), notV8);
  invalid(() => mutation(3, zeros(8), 1), notV8);
  invalid(() => mutation(3, Uint8Array.fromHex("ff0f220131"), 1), notV8);
  const notU64 = (name: string) =>
    new RegExp(`^Failed to perform '${name}' mutation on a non-U64 operand: `);
  invalid(() => mutation(4, number, 1), notU64("max"));
  invalid(() => mutation(5, zeros(8), 3), notU64("min"));
  for (const type of [1, 3, 4, 5, 9]) {
    invalid(() => write(message([1, key("a")], [3, type])), /has none/);
  }
  assert.equal(mutation(3, number, 1).mutations[0].type, MutationType.SUM);
  const bounded = (min: Uint8Array, max: Uint8Array, le64: boolean) =>
    write(message(
      [1, key("a")],
      [2, le64 ? message([1, zeros(8)], [2, 2]) : message([1, number], [2, 1])],
      [3, 3],
      [5, min],
      [6, max],
      [7, 1],
    ));
  const [sum] = bounded(encodeV8Number(0), encodeV8Number(9), false).mutations;
  assert.deepEqual([sum.sumMin, sum.sumMax, sum.sumClamp], [
    encodeV8Number(0),
    encodeV8Number(9),
    true,
  ]);
  invalid(() => bounded(zeros(3), number, false), /bounds of the same kind/);
  invalid(() => bounded(number, zeros(3), false), /bounds of the same kind/);
  invalid(
    () => bounded(number, number, true),
    /^Cannot use min\/max parameters with KvU64 operands: .* takes no bounds/,
  );
});

Deno.test("limit: the bigints of a sum, which are refused before any is made", () => {
  const most = MAX_SUM_BIGINT_BYTES;
  const sum = (value: number, min = 0, max = 0) => {
    const mutation = message(
      [1, key("a")],
      [2, message([1, bigintOf(value)], [2, 1])],
      [3, MutationType.SUM],
      [5, min === 0 ? zeros(0) : bigintOf(min)],
      [6, max === 0 ? zeros(0) : bigintOf(max)],
    );
    const body = message([2, mutation]);
    const original = globalThis.BigInt;
    globalThis.BigInt = new Proxy(original, {
      apply: () => assert.fail("a bigint was made"),
    });
    try {
      return decodeAtomicWrite(body, NOW_MS);
    } finally {
      globalThis.BigInt = original;
    }
  };
  assert.equal(sum(most, most, most).mutations.length, 1);
  assert.equal(sum(8).mutations.length, 1);
  for (const length of [most + 1, most + 8, 65_000]) {
    const says = /^The bigints of a sum.* at most 1024 bytes/;
    refused(() => sum(length), says);
    refused(() => sum(8, length), says);
    refused(() => sum(8, 0, length), says);
  }
});

/** A bigint in V8's format that takes so many bytes there. */
function bigintOf(length: number): Bytes {
  const field = [];
  let rest = length * 2;
  for (; rest >= 0x80; rest >>>= 7) field.push((rest & 0x7f) | 0x80);
  field.push(rest);
  const head = Uint8Array.of(0xff, 0x0f, 0x5a, ...field);
  return concatBytes([head, new Uint8Array(length).fill(1)]);
}

Deno.test("an expiry is never, or a time; one beyond all clocks is kept apart from never", () => {
  const expiring = (at: number | bigint) =>
    write(message(
      [1, key("a")],
      [2, message([1, zeros(1)], [2, 3])],
      [3, 1],
      [4, at],
    )).mutations[0].expireAtMs;
  assert.equal(expiring(0), NEVER_MS);
  assert.equal(expiring(-1), NEVER_MS);
  assert.equal(expiring(1), 1);
  assert.equal(expiring(NOW_MS), NOW_MS);
  assert.equal(expiring(2n ** 63n - 1n), Number.MAX_SAFE_INTEGER);
  refused(() => expiring(-2), /expiry time/, InvalidRequestError);
  refused(() => expiring(-(2n ** 63n)), /expiry time/, InvalidRequestError);
});

Deno.test("limit: what a queue message may ask, at the limit and one beyond", () => {
  const enqueue = (...fields: Field[]) =>
    decodeAtomicWrite(message([3, message(...fields)]), NOW_MS).enqueues[0];
  const undelivered: Field = [3, key("u")];
  const times = (count: number, field: Field) =>
    new Array<Field>(count).fill(field);
  assert.equal(enqueue([1, zeros(65_536)]).payload.length, 65_536);
  refused(() => enqueue([1, zeros(65_537)]), /65536 bytes.*65537/);
  assert.equal(enqueue(...times(10, undelivered)).keysIfUndelivered.length, 10);
  refused(() => enqueue(...times(11, undelivered)), /10 keys/);
  refused(() => enqueue([3, zeros(1)]), /undelivered key/, InvalidRequestError);
  assert.equal(enqueue(...times(10, [4, 1])).backoffScheduleMs?.length, 10);
  refused(() => enqueue(...times(11, [4, 1])), /10 intervals/);
  refused(() => enqueue([4, new Uint8Array(11)]), /10 intervals/);
  assert.deepEqual(enqueue([4, 3_600_000]).backoffScheduleMs, [3_600_000]);
  refused(() => enqueue([4, 3_600_001]), /3600000 ms/, InvalidRequestError);
  const longest = NOW_MS + 30 * 24 * 3_600_000;
  assert.equal(enqueue([2, longest]).deadlineMs, longest);
  refused(() => enqueue([2, longest + 1]), /30 days/, InvalidRequestError);
  refused(() => enqueue([2, -1]), /30 days/, InvalidRequestError);
});

Deno.test("limit: watched keys, at the limit and one beyond", () => {
  const watch = (count: number) =>
    decodeWatch(message(
      ...Array.from(
        { length: count },
        (_, i): Field => [1, message([1, key(`k${i}`)])],
      ),
    ));
  assert.deepEqual(
    watch(10),
    Array.from({ length: 10 }, (_, i) => key(`k${i}`)),
  );
  refused(() => watch(11), /10 keys/);
});

Deno.test("random and damaged bodies fail with a sentence or not at all (seeded)", () => {
  const random = seededRandom(11);
  const valid = [
    message([1, range(key("a"), key("b"), 10)]),
    message([1, message([1, key("a")])], [2, set(key("a"), zeros(9))]),
    message([3, message([1, zeros(3)], [3, key("a")], [4, 5])]),
  ];
  for (let i = 0; i < 30_000; i++) {
    const body = random.below(2)
      ? random.bytes(random.below(40))
      : valid[random.below(3)].slice();
    for (let j = random.below(4); j > 0 && body.length > 0; j--) {
      body[random.below(body.length)] = random.below(256);
    }
    const cut = body.subarray(0, random.below(body.length + 1));
    for (
      const decode of [
        decodeSnapshotRead,
        decodeWatch,
        (bytes: Bytes) => decodeAtomicWrite(bytes, NOW_MS),
      ]
    ) {
      try {
        decode(cut);
      } catch (error) {
        assert.ok(
          error instanceof InvalidRequestError ||
            error instanceof TooLargeError,
          `${cut.toHex()}: ${error}`,
        );
      }
    }
  }
});

Deno.test("limit: the fields of a request, in whatever message they are", () => {
  const most = MAX_MESSAGE_FIELDS;
  const empties = (count: number) =>
    new Uint8Array(2 * count).map((_, i) => i % 2 === 0 ? 0x7a : 0);
  const says = /more fields than any request needs/;
  assert.equal(decodeAtomicWrite(empties(most), NOW_MS).mutations.length, 0);
  refused(() => decodeAtomicWrite(empties(most + 1), NOW_MS), says);
  for (const field of [1, 2, 3]) {
    const body = message([field, empties(most)]);
    refused(() => decodeAtomicWrite(body, NOW_MS), says);
  }
});
