/** Which points in time a replica's file can go to; it is only read. */
import type { DatabaseSync } from "node:sqlite";
import { exists } from "../../common/files.ts";
import { StartupError } from "../../common/errors.ts";
import type { CommitPoint } from "../replica_writer.ts";
import { notOpened, openConnection, prepareRows } from "./connection.ts";
import { databaseFile } from "./database_file.ts";
import {
  commitStamp,
  hasTable,
  isAfter,
  pointOf,
  type ReplicaPosition,
  replicaPosition,
} from "./history_tables.ts";
import { schemaVersion } from "./schema.ts";
import { StateTable } from "./state.ts";

export interface HistoryPoint {
  point: CommitPoint;
  timeMs: number;
}

/** What is behind the state that is shown, and what is before it. */
const COMMITS =
  "(select versionstamp12, timestamp_ms from tt_redo_log union all select versionstamp12, timestamp_ms from tt_undo_log) where substr(versionstamp12, 11) = x'ffff'";

export class ReplicaHistory {
  readonly position: ReplicaPosition;
  private readonly db: DatabaseSync;

  /** @throws StartupError where it is no replica's file */
  constructor(path: string) {
    const file = databaseFile(path);
    if (!exists(file)) {
      throw new StartupError(
        `${path} is not there. \`denokv pitr sync\` makes it out of a bucket.`,
      );
    }
    const db = openConnection(file, true);
    try {
      const version = schemaVersion(db, path, { takesViews: true });
      const state = hasTable(db, "denokv_state")
        ? new StateTable(db)
        : undefined;
      if (version < 0 || !hasTable(db, "tt_config")) {
        throw new StartupError(
          `${path} is no replica: it keeps no history to go back in. Nothing was changed. For a database with a backup there is \`denokv restore --at\` and \`denokv backup rewind\`.`,
        );
      }
      const position = replicaPosition(db, state);
      if (position === undefined) {
        throw new StartupError(
          `The first snapshot in ${path} is not complete, so there is no point to go to yet. Nothing was changed; finish it with \`denokv pitr sync\`.`,
        );
      }
      this.position = position;
      this.db = db;
    } catch (error) {
      db.close();
      throw notOpened(path, error, true);
    }
  }

  /** Newest first. */
  *list(startMs = 0, endMs = Number.MAX_SAFE_INTEGER): Generator<HistoryPoint> {
    const rows = prepareRows(
      this.db,
      `select hex(versionstamp12), timestamp_ms from ${COMMITS} and timestamp_ms >= ? and timestamp_ms < ? order by versionstamp12 desc`,
    ).iterate(startMs, endMs) as Iterable<unknown>;
    for (const row of rows) {
      const [stamp, timeMs] = row as [string, number];
      const point = pointOf(stamp);
      if (point !== undefined) yield { point, timeMs };
    }
  }

  /** The last commit that was made at or before it; undefined: none is known. */
  at(timeMs: number): CommitPoint | undefined {
    const row = prepareRows(
      this.db,
      `select hex(max(versionstamp12)) from ${COMMITS} and timestamp_ms <= ?`,
    ).get(timeMs) as unknown as [string | null];
    const { floor, floorMs } = this.position;
    const found = pointOf(row[0] ?? undefined);
    if (found !== undefined && !(floor && isAfter(floor, found))) return found;
    return floorMs !== undefined && floorMs <= timeMs ? floor : undefined;
  }

  /** When the commit was made, where it is known. */
  timeOf(point: CommitPoint): number | undefined {
    const stamp = Uint8Array.fromHex(commitStamp(point));
    for (const log of ["tt_undo_log", "tt_redo_log"]) {
      const row = prepareRows(
        this.db,
        `select timestamp_ms from ${log} where versionstamp12 = ?`,
      ).get(stamp) as unknown as [number] | undefined;
      if (row !== undefined) return row[0];
    }
    const { floor, floorMs } = this.position;
    return floor !== undefined && !isAfter(floor, point) &&
        !isAfter(point, floor)
      ? floorMs
      : undefined;
  }

  close(): void {
    this.db.close();
  }
}
