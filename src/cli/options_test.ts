import assert from "node:assert/strict";
import { durationMs } from "./duration.ts";
import {
  COMMANDS,
  defaultOf,
  OPTION_LIST,
  type OPTIONS,
  optionsOf,
} from "./options.ts";

Deno.test("flags and environment names are well formed and unique", () => {
  const seen = new Set<string>();
  for (const [name, spec] of OPTION_LIST) {
    if (spec.isArgument) assert.equal(spec.flag ?? spec.env, undefined, name);
    else assert(spec.flag !== undefined || spec.env !== undefined, name);
    if (spec.flag !== undefined) {
      assert.match(spec.flag, /^[a-z0-9]+(-[a-z0-9]+)*$/);
    }
    if (spec.env !== undefined) {
      assert.match(spec.env, /^[A-Z0-9]+(_[A-Z0-9]+)*$/);
    }
    for (const word of [spec.flag, spec.env]) {
      if (word === undefined) continue;
      assert(!seen.has(word), word);
      seen.add(word);
    }
    assert(spec.commands.length > 0, name);
    const needsPlaceholder = spec.isArgument ||
      spec.flag !== undefined && spec.type.kind !== "boolean";
    assert.equal(spec.placeholder !== undefined, needsPlaceholder, name);
    assert.match(spec.help, /^[A-Z].*\.$/s);
  }
});

Deno.test("every default is a value that the option itself takes", () => {
  for (const command of Object.keys(COMMANDS) as (keyof typeof COMMANDS)[]) {
    for (const [name, spec] of optionsOf(command)) {
      const value = defaultOf(spec, command);
      if (value === undefined) continue;
      const { type } = spec;
      if (type.kind === "integer") {
        assert(typeof value === "number", name);
        assert(value >= type.min && value <= type.max, name);
      } else if (type.kind === "choice") {
        assert(type.choices.includes(String(value)), name);
      } else if (type.kind === "duration") {
        const valueMs = durationMs(String(value));
        assert(valueMs !== undefined, name);
        assert(valueMs >= type.minMs && valueMs <= type.maxMs, name);
      } else assert.equal(typeof value, type.kind, name);
    }
  }
});

Deno.test("the Rust server's flags, variables and defaults are here unchanged", () => {
  const rust: [keyof typeof OPTIONS, string, string | undefined, unknown][] = [
    ["sqlitePath", "sqlite-path", "DENO_KV_SQLITE_PATH", undefined],
    ["accessToken", "access-token", "DENO_KV_ACCESS_TOKEN", undefined],
    ["addr", "addr", undefined, "0.0.0.0:4512"],
    ["readOnly", "read-only", undefined, false],
    ["numWorkers", "num-workers", "DENO_KV_NUM_WORKERS", 1],
    [
      "atomicWriteBatchTimeoutMs",
      "atomic-write-batch-timeout-ms",
      "DENO_KV_ATOMIC_WRITE_BATCH_TIMEOUT_MS",
      undefined,
    ],
  ];
  const table = new Map(OPTION_LIST);
  for (const [name, flag, env, value] of rust) {
    const spec = table.get(name)!;
    assert.equal(spec.flag, flag);
    assert.equal(spec.env, env);
    assert.equal(defaultOf(spec, "serve"), value);
    assert(spec.commands.includes("serve"));
  }
});

Deno.test("a secret has no default, and only the compatible one has a flag", () => {
  for (const [name, spec] of OPTION_LIST) {
    if (!spec.isSecret) continue;
    assert.equal(spec.default, undefined);
    assert.equal(spec.flag !== undefined, name === "accessToken");
  }
});
