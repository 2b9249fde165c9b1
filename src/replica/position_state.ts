/** The position as it is kept in the file (docs/formats/sqlite-file.md). */
import type { Position } from "./source.ts";

/** Names in `denokv_state`. */
export const REPLICA_STATE = {
  /** The source that the file follows. */
  source: "replica_source",
  position: "replica_position",
  /** The last version that changed something; whoever applies writes it. */
  content: "replica_content",
} as const;

export function formatState(
  { version, timeMs, epoch, place }: Position,
): string {
  return JSON.stringify({ version, timeMs, epoch, place });
}

/** Undefined where it is none. */
export function parseState(text: string | undefined): Position | undefined {
  try {
    const { version, timeMs, epoch, place } = JSON.parse(text ?? "");
    const areNumbers = [version, timeMs, epoch].every(Number.isSafeInteger);
    if (!areNumbers || typeof place !== "string") return undefined;
    return { version, timeMs, epoch, place };
  } catch {
    return undefined;
  }
}
