import assert from "node:assert/strict";
import { join } from "node:path";
import { StartupError, UsageError } from "../common/errors.ts";
import { seededRandom, systemRandom } from "../common/random.ts";
import { isReadableByOthers, keepAccessToken } from "./access_token.ts";

async function withFolder(work: (folder: string) => void | Promise<void>) {
  const folder = await Deno.makeTempDir();
  try {
    await work(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("a token is made once, for its owner alone, and kept", async () => {
  await withFolder((folder) => {
    const path = join(folder, "new", "data", "access-token");
    const first = keepAccessToken(path, systemRandom);
    assert(first.isNew);
    assert.match(first.token, /^[0-9a-f]{48}$/);
    assert.deepEqual(keepAccessToken(path, systemRandom), {
      token: first.token,
      isNew: false,
    });
    assert(!isReadableByOthers(path));
    if (Deno.build.os !== "windows") {
      assert.equal(Deno.statSync(path).mode! & 0o777, 0o600);
      assert.equal(Deno.statSync(join(path, "..")).mode! & 0o777, 0o700);
      Deno.chmodSync(path, 0o644);
      assert(isReadableByOthers(path));
    }
    // No draft is left beside it.
    assert.deepEqual(
      [...Deno.readDirSync(join(path, ".."))].map((e) => e.name),
      [
        "access-token",
      ],
    );
  });
});

Deno.test("who comes second takes the token of the first", async () => {
  await withFolder((folder) => {
    const path = join(folder, "access-token");
    const second = seededRandom(1);
    // Another program makes the file after we saw that it was missing.
    const meanwhile = {
      ...second,
      bytes(count: number) {
        if (count === 24) Deno.writeTextFileSync(path, "made-by-the-first\n");
        return second.bytes(count);
      },
    };
    assert.deepEqual(keepAccessToken(path, meanwhile), {
      token: "made-by-the-first",
      isNew: false,
    });
    assert.equal([...Deno.readDirSync(folder)].length, 1);
  });
});

Deno.test("a token that can be neither made nor read is told in a sentence", async () => {
  await withFolder((folder) => {
    const blocker = join(folder, "file");
    Deno.writeTextFileSync(blocker, "");
    assert.throws(
      () => keepAccessToken(join(blocker, "access-token"), systemRandom),
      (error: unknown) =>
        error instanceof StartupError &&
        /cannot be kept in/.test(error.message),
    );
    const directory = join(folder, "access-token");
    Deno.mkdirSync(directory);
    assert.throws(
      () => keepAccessToken(directory, systemRandom),
      (error: unknown) =>
        error instanceof UsageError && /cannot be read/.test(error.message),
    );
  });
});
