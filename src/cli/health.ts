/** `health`: asks a running server whether it is ready. */
import { type Clock, systemClock } from "../common/clock.ts";
import { messageOf } from "../common/errors.ts";
import { formatAddress } from "./address.ts";
import type { HealthConfig } from "./config.ts";
import type { CliIo } from "./io.ts";

/** Docker gives a health check 30 s; an answer this late is no good answer. */
const TIMEOUT_MS = 5_000;

/** What is printed of an answer that is no sentence of ours. */
const MAX_ANSWER_CHARACTERS = 500;

/** @returns the exit code: 0 ready, 1 not ready or not reached */
export async function health(
  config: HealthConfig,
  io: CliIo,
  clock: Clock = systemClock,
): Promise<number> {
  const url = `http://${formatAddress(config.address)}/-/ready`;
  const abort = new AbortController();
  const timer = clock.after(TIMEOUT_MS, () => {
    abort.abort(new Error(`no answer within ${TIMEOUT_MS} ms`));
  });
  try {
    const answer = await fetch(url, { signal: abort.signal });
    const text = (await answer.text()).trim().slice(0, MAX_ANSWER_CHARACTERS);
    if (answer.status === 200) {
      io.out(`ready: ${url}`);
      return 0;
    }
    io.err(`not ready: ${url} answered ${answer.status}: ${text}`);
  } catch (error) {
    io.err(`not ready: ${url} could not be asked: ${messageOf(error)}`);
  } finally {
    timer.stop();
  }
  return 1;
}
