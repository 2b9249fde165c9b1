import assert from "node:assert/strict";
import { createPrivateFile } from "./files.ts";

Deno.test("a private file is its owner's alone; one that is there stays as it is", async () => {
  if (Deno.build.os === "windows") return;
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  try {
    const path = `${folder}/a`;
    const mode = () => (Deno.statSync(path).mode! & 0o777).toString(8);
    createPrivateFile(path);
    assert.equal(mode(), "600");
    Deno.chmodSync(path, 0o644);
    Deno.writeTextFileSync(path, "data");
    createPrivateFile(path);
    assert.equal(mode(), "644");
    assert.equal(Deno.readTextFileSync(path), "data");
    assert.throws(
      () => createPrivateFile(`${folder}/none/a`),
      Deno.errors.NotFound,
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
