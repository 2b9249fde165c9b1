import assert from "node:assert/strict";
import { StartupError } from "../../common/errors.ts";
import { lockInstance } from "./instance_lock.ts";
import { openSqliteStore } from "./store.ts";

Deno.test("a lock that is given back twice is free, and the second time says nothing", async () => {
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  try {
    const path = `${folder}/denokv.sqlite`;
    const lock = lockInstance(path);
    assert.throws(() => lockInstance(path), StartupError);
    await Deno.writeTextFile(path, "no database at all, but long enough");
    // Opening gives it back where it fails, and so does whoever took it.
    await assert.rejects(
      openSqliteStore({ path, lock }),
      (error) =>
        error instanceof StartupError && /not a database/.test(error.message),
    );
    lock.release();
    lockInstance(path).release();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
