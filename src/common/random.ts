/** The only place that asks for randomness; tests hand in a seeded one. */
export interface Random {
  /** A whole number from 0 to `bound - 1`; `bound` at most 2^32. */
  below(bound: number): number;
  /** `count` random bytes. */
  bytes(count: number): Uint8Array<ArrayBuffer>;
}

// One call into the runtime's generator for many numbers: a version step is
// drawn for every atomic write.
const pool = new Uint32Array(256);
let used = pool.length;

/** The runtime's generator refuses to hand out more at once. */
const MAX_DRAW_BYTES = 65_536;

/** Cryptographically strong, from the runtime. */
export const systemRandom: Random = {
  below(bound) {
    if (used === pool.length) {
      crypto.getRandomValues(pool);
      used = 0;
    }
    return Math.floor(pool[used++] / 0x1_0000_0000 * bound);
  },
  bytes(count) {
    const out = new Uint8Array(count);
    for (let at = 0; at < count; at += MAX_DRAW_BYTES) {
      crypto.getRandomValues(out.subarray(at, at + MAX_DRAW_BYTES));
    }
    return out;
  },
};

/** Repeatable: the same seed gives the same numbers (mulberry32). */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  function next(): number {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }
  return {
    below: (bound) => Math.floor(next() / 0x1_0000_0000 * bound),
    bytes(count) {
      const out = new Uint8Array(count);
      for (let i = 0; i < count; i++) out[i] = next();
      return out;
    },
  };
}

/** A random (version 4) UUID in lowercase, as `@deno/kv` demands it. */
export function randomUuid(random: Random): string {
  return uuidOf(random.bytes(16), 4);
}

/** A UUID of the given version out of 16 or more bytes, in lowercase. */
export function uuidOf(bytes: Uint8Array, version: number): string {
  const b = bytes.slice(0, 16);
  b[6] = (b[6] & 0x0f) | (version << 4);
  b[8] = (b[8] & 0x3f) | 0x80;
  const hex = b.toHex();
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-` +
    `${hex.slice(16, 20)}-${hex.slice(20)}`;
}
