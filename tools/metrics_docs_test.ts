import assert from "node:assert/strict";

const read = (path: string) =>
  Deno.readTextFileSync(new URL(`../${path}`, import.meta.url));

Deno.test("every metric that the docs name is one that the server has", () => {
  const known = new Set(
    read("src/server/metrics.ts").match(/\bdenokv_[a-z_]+/g),
  );
  for (
    const path of [
      "README.md",
      "docs/limits.md",
      "docs/backup.md",
      "docs/changes.md",
    ]
  ) {
    for (const [name] of read(path).matchAll(/\bdenokv_[a-z_]+[a-z]\b/g)) {
      assert.ok(known.has(name), `${path} names ${name}`);
    }
  }
});
