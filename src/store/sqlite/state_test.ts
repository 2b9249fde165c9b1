import assert from "node:assert/strict";
import { silentLogger } from "../../common/log.ts";
import { systemClock } from "../../common/clock.ts";
import { systemRandom } from "../../common/random.ts";
import { openWriteSession } from "./session.ts";

Deno.test("what is kept in the state comes back as it was put, also a text like a number", async () => {
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  const open = () =>
    openWriteSession({
      path: `${folder}/denokv.sqlite`,
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
    });
  const texts = ["1e5", "12e4", "007", "0x10", "1.50", " 1", "", "ü", "-0"];
  const numbers = [0, -1, 2 ** 53 - 1, 1_700_000_000_000];
  try {
    let session = open();
    texts.forEach((text, i) => session.state.set(`text ${i}`, text));
    numbers.forEach((number, i) => session.state.set(`number ${i}`, number));
    session.close();
    session = open();
    texts.forEach((text, i) =>
      assert.equal(session.state.getText(`text ${i}`), text)
    );
    numbers.forEach((number, i) =>
      assert.equal(session.state.getNumber(`number ${i}`), number)
    );
    assert.equal(session.state.getText("none"), undefined);
    assert.equal(session.state.getNumber("none"), undefined);
    session.state.set("text 0", 7);
    assert.equal(session.state.getNumber("text 0"), 7);
    session.close();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
