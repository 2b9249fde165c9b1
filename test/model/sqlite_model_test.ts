/**
 * The SQLite engine against the model. The seed is new each time and printed;
 * DENOKV_TEST_SEED goes through the same requests again, DENOKV_TEST_OPS sets
 * how many.
 */
import { makeSqlitePlace } from "../../src/store/sqlite/place.ts";
import { runModel } from "./runner.ts";

const OPERATIONS = 100_000;
/** Fresh databases: what goes wrong only at the beginning shows too. */
const PARTS = 4;

Deno.test("the SQLite store answers as the model does", async () => {
  const given = Deno.env.get("DENOKV_TEST_SEED");
  const seed = Number(given ?? crypto.getRandomValues(new Uint32Array(1))[0]);
  const operations = Number(Deno.env.get("DENOKV_TEST_OPS") ?? OPERATIONS);
  console.log(`DENOKV_TEST_SEED=${seed}, ${operations} operations`);
  for (let part = 0; part < PARTS; part++) {
    const place = await makeSqlitePlace();
    try {
      const run = await runModel(
        place,
        seed + part,
        Math.ceil(operations / PARTS),
      );
      console.log(JSON.stringify(run));
    } finally {
      await place.remove();
    }
  }
});
