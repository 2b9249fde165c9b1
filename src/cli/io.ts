/** What a command needs of the process around it; tests hand in their own. */
import { systemClock } from "../common/clock.ts";
import { createLogger, type LogFormat } from "../common/log.ts";

export interface CliIo {
  /** Writes one line to standard output. */
  out(line: string): void;
  /** Writes one line to standard error. */
  err(line: string): void;
  /**
   * How a line on standard error looks, once the command line has said it.
   * Where it is "json" every line there is JSON, also the last words.
   */
  logFormat?: LogFormat;
  /** Whether the runtime hides a variable. Absent: it hides none. */
  isHidden?(variable: string): boolean;
  /**
   * Asks the person at the terminal a question of yes or no. Absent: nobody
   * can be asked.
   */
  confirm?(question: string): boolean;
  /**
   * Called by `serve` when it has its port, be it before its database is open,
   * with the URL at which this machine reaches it; no slash at its end.
   */
  onBound?(url: string): void;
  /**
   * Called by `serve` once it listens, with the URL that clients use, such as
   * `http://localhost:4512`, no slash at its end.
   */
  onListening?(url: string): void;
}

/**
 * One sentence on standard error that belongs to no event of the log: why the
 * command ends, or what the person should mend.
 */
export function say(
  io: CliIo,
  kind: "error" | "warning" | "denokv",
  sentence: string,
): void {
  if (io.logFormat !== "json") return io.err(`${kind}: ${sentence}`);
  const logger = createLogger({
    format: "json",
    level: "warn",
    clock: systemClock,
    write: (line) => io.err(line),
  });
  if (kind === "warning") logger.warn(sentence);
  else logger.error(sentence);
}

/**
 * Of a command line with a mistake in it: whoever reads the log of a server as
 * JSON reads that mistake there too.
 */
export function wantedLogFormat(
  args: readonly string[],
  env: (name: string) => string | undefined,
): LogFormat {
  if (!args.some((word) => word === "serve" || word === "start")) return "text";
  const at = args.findIndex((word) => /^--log-format(=|$)/.test(word));
  const text = at < 0
    ? env("DENO_KV_LOG_FORMAT")
    : args[at].split("=")[1] ?? args[at + 1];
  return text?.toLowerCase() === "json" ? "json" : "text";
}
