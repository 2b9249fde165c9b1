import assert from "node:assert/strict";
import { onTimerFailure, systemClock } from "./clock.ts";

Deno.test("a timer that fails is handed to whoever takes it, and an interval goes on", async () => {
  const failures: unknown[] = [];
  onTimerFailure((error) => failures.push((error as Error).message));
  try {
    await new Promise<void>((resolve) => {
      let count = 0;
      const fail = (message: string): never => {
        throw new Error(message);
      };
      systemClock.endOfTurn(() => fail("turn"));
      systemClock.after(1, () => fail("after"));
      const timer = systemClock.every(2, () => {
        if (++count === 3) {
          timer.stop();
          resolve();
        }
        fail("every");
      });
      // An unref'd timer alone would let the process end.
      setTimeout(() => {}, 1000);
    });
    assert.deepEqual(failures, ["turn", "after", "every", "every", "every"]);
  } finally {
    onTimerFailure((error) => {
      throw error;
    });
  }
});
