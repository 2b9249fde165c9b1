/** `pitr list`: a line for each commit of a replica's history. */
import { utf8 } from "../common/bytes.ts";
import { versionstampHex } from "../protocol/versionstamp.ts";
import { type HistoryPoint, ReplicaHistory } from "../store/sqlite/history.ts";
import type { PitrListConfig } from "./config.ts";

/** Written at once: a line costs more in a write of its own than in SQLite. */
const LINES = 1000;

/**
 * @param write to standard output; rejects where nobody reads any more
 * @returns the exit code
 */
export async function pitrList(
  { sqlitePath, startMs, endMs, json }: PitrListConfig,
  write: (bytes: Uint8Array) => Promise<void>,
): Promise<number> {
  const history = new ReplicaHistory(sqlitePath);
  try {
    let lines: string[] = [];
    const flush = async () => {
      await write(utf8(lines.join("")));
      lines = [];
    };
    for (const point of history.list(startMs, endMs)) {
      lines.push(json ? jsonLine(point) : line(point));
      if (lines.length >= LINES) await flush();
    }
    await flush();
  } catch (error) {
    // It may be `head`, or a pager that was left.
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  } finally {
    history.close();
  }
  return 0;
}

function line({ point, timeMs }: HistoryPoint): string {
  const time = new Date(timeMs).toISOString();
  return `${versionstampHex(point.version, point.order)}\t${time}\n`;
}

function jsonLine({ point, timeMs }: HistoryPoint): string {
  const versionstamp = versionstampHex(point.version, point.order);
  return `${JSON.stringify({ versionstamp, timeMs })}\n`;
}
