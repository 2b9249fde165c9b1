import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import plugin from "./plugin.ts";

/** The messages for a sample that pretends to be a file of the repository. */
function faults(path: string, source: string): string[] {
  const filename = fileURLToPath(new URL(`../../${path}`, import.meta.url));
  return Deno.lint.runPlugin(plugin, filename, source)
    .map(({ id, message }) => `${id}: ${message}`);
}

function refuses(path: string, source: string, message: RegExp): void {
  const found = faults(path, source);
  assert.equal(found.length, 1, `${path}: ${source}\n${found.join("\n")}`);
  assert.match(found[0], message);
}

function allows(path: string, source: string): void {
  assert.deepEqual(faults(path, source), [], `${path}: ${source}`);
}

/** Every way in which a file can name another. */
const WAYS = [
  (to: string) => `import { a } from "${to}";`,
  (to: string) => `import "${to}";`,
  (to: string) => `import type { A } from "${to}";`,
  (to: string) => `export { a } from "${to}";`,
  (to: string) => `export * from "${to}";`,
  (to: string) => `const a = await import("${to}");`,
  (to: string) => `const a = await import(\`${to}\`);`,
  (to: string) => `type A = import("${to}").A;`,
  (to: string) => `new Worker(new URL("${to}", import.meta.url));`,
  (to: string) => `Deno.readTextFile(new URL("${to}", import.meta.url));`,
  (to: string) => `new Worker(import.meta.resolve("${to}"));`,
];

Deno.test("a room may not import what stands above it, in no way of importing", () => {
  for (const way of WAYS) {
    refuses(
      "src/store/a.ts",
      way("../server/b.ts"),
      /^house\/layers: src\/store may not import src\/server: it may import common, protocol, log\.$/,
    );
    allows("src/server/a.ts", way("../store/b.ts"));
    allows("src/store/a.ts", way("./b.ts"));
    allows("src/store/sqlite/a.ts", way("../b.ts"));
    allows("src/store/sqlite/a.ts", way("../../common/b.ts"));
  }
});

Deno.test("every pair of rooms is allowed or refused as the house says", () => {
  const above: Record<string, string[]> = {
    common: [
      "protocol",
      "log",
      "object_store",
      "store",
      "backup",
      "server",
      "cli",
    ],
    protocol: ["log", "object_store", "store", "backup", "server", "cli"],
    log: ["object_store", "store", "backup", "server", "cli"],
    object_store: ["protocol", "log", "store", "backup", "server", "cli"],
    store: ["object_store", "backup", "server", "cli"],
    backup: ["server", "cli"],
    server: ["object_store", "backup", "cli"],
    cli: [],
  };
  const rooms = Object.keys(above);
  for (const from of rooms) {
    for (const to of rooms) {
      const source = `import "../${to}/b.ts";`;
      if (above[from].includes(to)) {
        refuses(`src/${from}/a.ts`, source, /may not import/);
      } else allows(`src/${from}/a.ts`, source);
    }
  }
});

Deno.test("src stays inside itself, and the door opens on the cli alone", () => {
  refuses("src/store/a.ts", `import "../../test/b.ts";`, /what src\/ needs/);
  refuses("src/cli/a.ts", `import "../../tools/b.ts";`, /what src\/ needs/);
  refuses("src/store/a.ts", `import "../../../b.ts";`, /leaves the repository/);
  refuses("src/store/a.ts", `import "./b_test.ts";`, /is a test/);
  refuses("src/attic/a.ts", `import "../common/b.ts";`, /no room/);
  refuses("src/store/a.ts", `import "../attic/b.ts";`, /no room/);
  refuses("main.ts", `import "./src/store/b.ts";`, /main\.ts is the door/);
  allows("main.ts", `import "./src/cli/b.ts";`);
  refuses("denokv.ts", `import "./src/store/b.ts";`, /denokv\.ts is the door/);
  allows("denokv.ts", `import "./src/cli/b.ts";`);
  allows(
    "src/cli/a.ts",
    `import m from "../../deno.json" with { type: "json" };`,
  );
  refuses(
    "src/store/a.ts",
    `import m from "../../deno.json" with { type: "json" };`,
    /may not import deno\.json/,
  );
  allows("src/store/a_test.ts", `import "../../test/b.ts";`);
  allows("src/cli/a_test.ts", `new URL("../../main.ts", import.meta.url);`);
  refuses("src/store/a_test.ts", `import "../cli/b.ts";`, /may not import/);
  allows("test/a.ts", `import "../src/store/b.ts";`);
  allows("src/store/a.ts", `import "node:sqlite"; import "npm:x@1.0.0";`);
});

Deno.test("an import that cannot be read is refused, but for tests", () => {
  refuses("src/store/a.ts", `await import(name);`, /plain string/);
  refuses("src/store/a.ts", "await import(`./${name}.ts`);", /plain string/);
  allows("src/store/a_test.ts", `await import(name);`);
});

const AMBIENT: [string, RegExp][] = [
  ["Date.now();", /Date\.now is for src\/common alone: use the Clock/],
  ["const now = Date.now;", /Date\.now/],
  [`Date["now"]();`, /Date\.now/],
  ["globalThis.Date.now();", /Date\.now/],
  ["Date?.now();", /Date\.now/],
  ["const { now } = Date;", /Date\.now/],
  ["const { now: n } = globalThis.performance;", /performance\.now/],
  ["new Date();", /new Date\(\)/],
  ["Date();", /Date\(\)/],
  ["performance.now();", /performance\.now/],
  ["Math.random();", /Math\.random is for .* use the Random/],
  ["crypto.randomUUID();", /crypto\.randomUUID/],
  ["crypto.getRandomValues(a);", /crypto\.getRandomValues/],
  ["globalThis.crypto.getRandomValues(a);", /crypto\.getRandomValues/],
  ["setTimeout(f, 1);", /setTimeout/],
  ["setInterval(f, 1);", /setInterval/],
  ["setImmediate(f);", /setImmediate/],
  ["globalThis.setTimeout(f, 1);", /setTimeout/],
  ["const later = setTimeout;", /setTimeout/],
  ["run({ setTimeout });", /setTimeout/],
  ["AbortSignal.timeout(1);", /AbortSignal\.timeout/],
  ["Temporal.Now.instant();", /Temporal\.Now/],
  [`import { randomBytes } from "node:crypto";`, /randomBytes of node:crypto/],
  [`import * as c from "node:crypto";`, /node:crypto/],
  [`import c from "crypto";`, /crypto/],
  [`import { setTimeout as s } from "node:timers/promises";`, /node:timers/],
  [`import { setImmediate } from "node:timers";`, /node:timers/],
];

Deno.test("time, timers and randomness are for src/common alone", () => {
  for (const [source, message] of AMBIENT) {
    refuses("src/store/a.ts", source, message);
    allows("src/common/a.ts", source);
    allows("src/store/a_test.ts", source);
    allows("test/a.ts", source);
    allows("bench/a.ts", source);
  }
});

Deno.test("what only looks like time or randomness is allowed", () => {
  for (
    const source of [
      "new Date(ms).toISOString();",
      "Date.parse(text);",
      "clock.now();",
      "clock.setTimeout(f, 1);",
      "const c = { setTimeout: f };",
      "class C { setTimeout() {} }",
      "interface C { setTimeout(): void; }",
      "random.random();",
      "crypto.subtle.digest(a, b);",
      "clearTimeout(t);",
      `import { createHmac } from "node:crypto";`,
      `import type { webcrypto } from "node:crypto";`,
    ]
  ) allows("src/store/a.ts", source);
});
