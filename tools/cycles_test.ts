import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";
import { findCycles, readGraph } from "./cycles.ts";

function graph(edges: Record<string, string[]>) {
  return new Map(Object.entries(edges));
}

Deno.test("a graph without a ring has no cycle", () => {
  assert.deepEqual(
    findCycles(graph({ a: ["b", "c"], b: ["d"], c: ["d"], d: ["node:fs"] })),
    [],
  );
});

Deno.test("rings are found, also a file that imports itself", () => {
  assert.deepEqual(
    findCycles(graph({ x: ["a"], a: ["b"], b: ["c"], c: ["a"], y: ["y"] })),
    [["a", "b", "c"], ["y"]],
  );
});

Deno.test("real files: types, re-exports and dynamic imports count", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const files = {
      "a.ts": `import type { B } from "./b.ts"; export type A = B;`,
      "b.ts": `export * from "./sub/c.ts"; export type B = 1;`,
      "sub/c.ts": `export const c = () => import("../a.ts");`,
      "free.ts": `import { c } from "./b.ts"; c();`,
    };
    await Deno.mkdir(`${folder}/sub`);
    for (const [name, text] of Object.entries(files)) {
      await Deno.writeTextFile(`${folder}/${name}`, text);
    }
    const root = pathToFileURL(`${await Deno.realPath(folder)}/`);
    const found = await readGraph(root);
    assert.equal(found.size, 4);
    assert.deepEqual(
      findCycles(found).map((cycle) =>
        cycle.map((file) => file.slice(root.href.length)).sort()
      ),
      [["a.ts", "b.ts", "sub/c.ts"]],
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
