/** Whether a person wants what a command is about to do. */
import { StartupError } from "../common/errors.ts";
import type { CliIo } from "./io.ts";

/**
 * @param isAgreed `--yes` was given
 * @throws StartupError where nobody can be asked
 */
export function isWanted(
  question: string,
  { isAgreed, json }: { isAgreed: boolean; json: boolean },
  io: CliIo,
): boolean {
  if (isAgreed) return true;
  // Who reads JSON gets the plan, and decides by running it again.
  if (json) return false;
  if (io.confirm === undefined) {
    throw new StartupError(
      "Nobody can be asked here, for want of a terminal. Nothing was changed; read what is above, and run it again with --yes to do it.",
    );
  }
  return io.confirm(question);
}
