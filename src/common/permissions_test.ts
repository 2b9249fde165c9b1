import assert from "node:assert/strict";
import { missingPermission } from "./permissions.ts";

const notCapable = (message: string) => new Deno.errors.NotCapable(message);

Deno.test("a file that may not be written: its folder is what has to be allowed", () => {
  assert.equal(
    missingPermission(
      notCapable(
        'Requires write access to "/data/db/x.sqlite-lock", run again with the --allow-write flag',
      ),
    ),
    "The permission to write /data/db/x.sqlite-lock is missing; add --allow-write=/data/db to the command and run it again.",
  );
  assert.equal(
    missingPermission(
      notCapable(
        'Requires read access to "x.sqlite", run again with the --allow-read flag',
      ),
    ),
    "The permission to read x.sqlite is missing; add --allow-read=. to the command and run it again.",
  );
  assert.match(
    missingPermission(
      notCapable(
        'Requires read access to "/a,b/x", run again with the --allow-read flag',
      ),
    )!,
    /missing\. A path with a comma cannot be named in --allow-read/,
  );
});

Deno.test("other permissions are named with what they are for", () => {
  assert.equal(
    missingPermission(
      notCapable(
        'Requires net access to "127.0.0.1:4512", run again with the --allow-net flag',
      ),
    ),
    'The permission "net" for 127.0.0.1:4512 is missing; add --allow-net=127.0.0.1:4512 to the command and run it again.',
  );
  assert.match(
    missingPermission(
      notCapable(
        "Requires ffi access, run again with the --allow-ffi flag",
      ),
    )!,
    /--allow-ffi to/,
  );
  assert.match(
    missingPermission(
      notCapable(
        'Requires all access to "/dev/stdin", run again with the --allow-all flag',
      ),
    )!,
    /^\/dev\/stdin is no ordinary file.*; name an ordinary file\.$/,
  );
  assert.match(
    missingPermission(notCapable("something new"))!,
    /^A permission .*something new\.$/,
  );
});

Deno.test("the runtime says it as this expects", async () => {
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-prompt",
      "data:application/typescript," + encodeURIComponent(
        `for (const f of [
           () => Deno.lstatSync("/nowhere/x"),
           () => Deno.listen({ port: 1, hostname: "127.0.0.1" }),
           () => Deno.env.get("X"),
         ]) try { f() } catch (error) {
           console.log(error instanceof Deno.errors.NotCapable, error.message);
         }`,
      ),
    ],
  }).output();
  const lines = new TextDecoder().decode(stdout).trim().split("\n");
  assert.equal(lines.length, 3);
  const sentences = lines.map((line) => {
    assert.match(line, /^true /);
    return missingPermission(notCapable(line.slice("true ".length)));
  });
  assert.match(sentences[0]!, /--allow-read=\/nowhere to/);
  assert.match(sentences[1]!, /--allow-net=127\.0\.0\.1:1 to/);
  assert.match(sentences[2]!, /--allow-env=X to/);
});

Deno.test("any other error is none of its business", () => {
  assert.equal(missingPermission(new Error("disk full")), undefined);
  assert.equal(missingPermission(undefined), undefined);
});
