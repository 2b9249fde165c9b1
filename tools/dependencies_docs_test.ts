import assert from "node:assert/strict";

const root = new URL("../", import.meta.url);

Deno.test("docs/dependencies.md names every package of deno.json, pinned exactly", async () => {
  const page = await Deno.readTextFile(new URL("docs/dependencies.md", root));
  const { imports } = JSON.parse(
    await Deno.readTextFile(new URL("deno.json", root)),
  ) as { imports: Record<string, string> };
  for (const [name, specifier] of Object.entries(imports)) {
    const version = /@(\d+\.\d+\.\d+[\w.+-]*)$/.exec(specifier)?.[1];
    assert(version, `${specifier} is not pinned to one version`);
    const row = page.split("\n").find((line) =>
      line.startsWith(`| \`${name}\``)
    );
    assert(row, `${name} has no row in docs/dependencies.md`);
    assert(row.includes(version), `${name}: the page has another version`);
  }
});
