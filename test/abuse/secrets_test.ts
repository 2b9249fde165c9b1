/** Wrong secrets, in thousands. */
import assert from "node:assert/strict";
import { Attack } from "./attack.ts";
import { attacked, CEILING_WITHOUT_SECRET_MIB } from "./victim.ts";

const REQUESTS = 5000;
/** Of the log, for these alone. */
const MAX_LINES = 50;

Deno.test("thousands of wrong secrets are refused, counted, and told in a few lines of the log", () => {
  const name = `${REQUESTS} wrong secrets`;
  return attacked(
    { name, ceilingMib: CEILING_WITHOUT_SECRET_MIB },
    async ({ server }) => {
      const lines = server.loggedLines;
      await using attack = await Attack.start("wrongSecrets", server.port, {
        requests: REQUESTS,
        atOnce: 10,
      });
      assert.deepEqual(await attack.end(), { 401: REQUESTS });
      const logged = server.loggedLines - lines;
      assert.ok(logged > 0, "the log does not tell of it");
      assert.ok(logged <= MAX_LINES, `${logged} lines`);
      const counts = [...await server.metrics()].filter(([name]) =>
        /secret|denied|denial|unauthori[sz]ed/.test(name)
      );
      assert.ok(
        counts.some(([, count]) => count >= REQUESTS),
        "no metric counts them",
      );
    },
  );
});
