/**
 * Random requests that make things happen: few keys, so that checks conflict
 * and sums meet every kind of value; all mutations; expiries close to now.
 */
import type { Random } from "../../src/common/random.ts";
import { encodeKey } from "../../src/protocol/key.ts";
import type { ReadRange } from "../../src/protocol/messages.ts";
import { encodeV8Number } from "../../src/protocol/v8_number.ts";
import type { Change, Model, Value, Write } from "./model.ts";

const KEYS = [
  encodeKey(["a"]),
  encodeKey(["a", 0]),
  encodeKey(["a", "b"]),
  encodeKey(["b"]),
  encodeKey([new Uint8Array([0])]),
  encodeKey([new Uint8Array([0, 255])]),
  encodeKey([-1n]),
  encodeKey([0]),
  encodeKey([true]),
  encodeKey(["long", "x".repeat(20)]),
].map((key) => key.toHex());

const SUFFIX_PREFIXES = ["", encodeKey(["log"]).toHex()];
/** Suffixed keys pile up; past so many, writes remove some. */
const MOST_ROWS = 40;

export class Generator {
  /** Versions that some key had once. */
  private readonly stale: number[] = [1];

  constructor(
    private readonly random: Random,
    private readonly model: Model,
  ) {}

  private one<T>(of: readonly T[]): T {
    return of[this.random.below(of.length)];
  }

  chance(percent: number): boolean {
    return this.random.below(100) < percent;
  }

  below(bound: number): number {
    return this.random.below(bound);
  }

  key(): string {
    return this.one(KEYS);
  }

  watchedKeys(): string[] {
    return Array.from({ length: 1 + this.below(4) }, () => this.key());
  }

  write(): Write {
    const { rows } = this.model;
    const write: Write = { checks: [], changes: [], enqueues: [] };
    if (this.chance(40)) {
      for (let i = 1 + this.below(3); i > 0; i--) {
        write.checks.push(this.check());
      }
    }
    const count = this.chance(5) ? 0 : 1 + this.below(this.chance(10) ? 30 : 4);
    for (let i = 0; i < count; i++) write.changes.push(this.change());
    // An expiry that has passed: only at the end, because what a later sum of
    // the same write makes of such an entry is nobody's promise.
    const last = write.changes.at(-1);
    if (last?.value && this.chance(3)) {
      last.expireAtMs = this.one([1, this.model.nowMs - 1, this.model.nowMs]);
    }
    if (rows.size > MOST_ROWS) {
      for (const key of rows.keys()) {
        if (this.chance(50)) write.changes.push({ do: "delete", key });
      }
    }
    if (this.chance(3)) {
      write.enqueues.push({
        payload: encodeV8Number(this.below(1000)),
        deadlineMs: this.model.nowMs + this.below(1000),
        keysIfUndelivered: [],
        backoffScheduleMs: this.chance(50) ? [1, 2] : null,
      });
    }
    return write;
  }

  private check(): Write["checks"][number] {
    const key = this.key();
    const current = this.model.rows.get(key)?.version ?? null;
    if (current !== null && this.chance(20)) {
      this.stale[this.below(20)] = current;
    }
    // Mostly as it is now, or writes with several checks would never pass.
    if (this.chance(75)) return { key, version: current };
    if (this.chance(50)) return { key, version: null };
    return { key, version: this.one(this.stale) ?? 1 };
  }

  private change(): Change {
    const kind = this.below(100);
    const key = this.key();
    if (kind < 35) {
      return { do: "set", key, value: this.value(), ...this.expiry() };
    }
    if (kind < 50) return { do: "delete", key };
    if (kind < 55) {
      return {
        do: "suffix",
        key: this.one(SUFFIX_PREFIXES),
        value: this.value(),
        ...this.expiry(),
      };
    }
    // Mostly of the kind that is there: one that is not refuses all the rest.
    const stored = this.model.rows.get(key)?.value.kind;
    const isNumber = stored === "number" || stored === "bigint";
    if (stored === "u64" || !isNumber && this.chance(50) || this.chance(2)) {
      const act = this.one(["sum", "min", "max"] as const);
      return { do: act, key, value: this.u64(), ...this.expiry() };
    }
    if (!isNumber && stored !== undefined && this.chance(80)) {
      return { do: "delete", key };
    }
    const value = this.number(isNumber && !this.chance(2) ? stored : undefined);
    const change: Change = { do: "sum", key, value, ...this.expiry() };
    if (this.chance(30)) change.min = this.bound(value);
    if (this.chance(30)) change.max = this.bound(value);
    if (this.chance(50)) change.clamp = true;
    return change;
  }

  private expiry(): { expireAtMs?: number } {
    if (!this.chance(30)) return {};
    if (this.chance(10)) return { expireAtMs: Number.MAX_SAFE_INTEGER };
    const soon = this.below(this.chance(50) ? 5 : 200);
    return { expireAtMs: this.model.nowMs + 1 + soon };
  }

  private value(): Value {
    switch (this.below(6)) {
      case 0:
        return this.u64();
      case 1:
      case 2:
      case 3:
        return this.number();
      case 4:
        return {
          kind: "bytes",
          hex: this.random.bytes(this.below(40)).toHex(),
        };
      default:
        return { kind: "v8", hex: this.one(["ff0f54", "ff0f220131"]) };
    }
  }

  private u64(): Value {
    return {
      kind: "u64",
      n: this.one([0n, 1n, 7n, 2n ** 63n, 2n ** 64n - 1n]),
    };
  }

  private number(kind?: "number" | "bigint"): Value {
    if (kind === "number" || (kind === undefined && this.chance(50))) {
      return {
        kind: "number",
        n: this.one([0, 1, -1, 2.5, -(2 ** 31), 2 ** 40]),
      };
    }
    return {
      kind: "bigint",
      n: this.one([0n, 1n, -1n, 2n ** 64n - 1n, 2n ** 64n, -(2n ** 80n)]),
    };
  }

  private bound(like: Value): Value {
    if (this.chance(5)) return this.number();
    return like.kind === "number"
      ? { kind: "number", n: this.one([-10, 0, 3, 10]) }
      : { kind: "bigint", n: this.one([-10n, 0n, 3n, 2n ** 65n]) };
  }

  ranges(): ReadRange[] {
    return Array.from({ length: 1 + this.below(4) }, () => this.range());
  }

  private range(): ReadRange {
    const bytes = (hex: string) => Uint8Array.fromHex(hex);
    const start = this.key();
    if (this.chance(50)) {
      return {
        start: bytes(start),
        end: bytes(start + "00"),
        limit: 1,
        reverse: false,
        isPoint: true,
      };
    }
    const everything = this.chance(30);
    return {
      start: bytes(everything ? "00" : start),
      end: bytes(everything ? "ff" : this.key()),
      limit: this.chance(50) ? 100 : 1 + this.below(5),
      reverse: this.chance(40),
      isPoint: false,
    };
  }
}
