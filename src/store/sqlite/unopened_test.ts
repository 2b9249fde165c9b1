import assert from "node:assert/strict";
import { systemClock as clock } from "../../common/clock.ts";
import { openConnection } from "./connection.ts";
import { lockInstance } from "./instance_lock.ts";
import { createRestoreTarget } from "./restore_target.ts";

Deno.test("a file that cannot be opened: the reason is looked for, and told", async () => {
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  try {
    const file = `${folder}/file`;
    await Deno.writeTextFile(file, "x");
    const noFolder = /cannot be opened\. The folder \S+none is not there; make/;
    const cases: [() => unknown, RegExp][] = [
      [() => lockInstance(`${folder}/none/a.sqlite`), noFolder],
      [() => openConnection(`${folder}/none/a.sqlite`, false), noFolder],
      [() => openConnection(`${folder}/none/a.sqlite`, true), noFolder],
      [
        () => createRestoreTarget(`${folder}/none/a.sqlite`, { clock }),
        noFolder,
      ],
      [
        () => openConnection(folder, false),
        /is a folder; name a file in it\.$/,
      ],
      [
        () => openConnection(`${folder}/none.sqlite`, true),
        /is not there, and nothing is made where it is only read/,
      ],
      [
        () => lockInstance(`${file}/a.sqlite`),
        /cannot be opened/,
      ],
    ];
    for (const [open, sentence] of cases) {
      await assert.rejects(async () => await open(), (error: Error) => {
        assert.equal(error.name, "StartupError", `${error.stack}`);
        assert.match(error.message, sentence);
        return true;
      });
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
