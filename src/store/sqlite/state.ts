/** A few named values of ours, kept in the database (`denokv_state`). */
import type { DatabaseSync, StatementSync } from "node:sqlite";

export class StateTable {
  private readonly select: StatementSync;
  private readonly upsert: StatementSync;
  private readonly upsertRoom: StatementSync;
  private readonly deleteRoom: StatementSync;

  constructor(private readonly db: DatabaseSync) {
    // As text: another program may have put a number there that no number of
    // this language holds.
    this.select = db.prepare(
      "select cast(v as text) as v from denokv_state where k = ?",
    );
    this.upsert = db.prepare(
      "insert into denokv_state (k, v) values (?, ?) on conflict (k) do update set v = excluded.v",
    );
    this.upsertRoom = db.prepare(
      "insert into denokv_state (k, v) values ('room', randomblob(?)) on conflict (k) do update set v = excluded.v",
    );
    this.deleteRoom = db.prepare("delete from denokv_state where k = 'room'");
  }

  getText(name: string): string | undefined {
    return this.select.get(name)?.v as string | undefined;
  }

  /** Undefined too where it is no whole number, or none that can be held. */
  getNumber(name: string): number | undefined {
    const value = Number(this.getText(name) || NaN);
    return Number.isSafeInteger(value) ? value : undefined;
  }

  /** What says whose this database is: its id, and what its backup keeps. */
  identity(): [name: string, value: string][] {
    const rows = this.db.prepare(
      "select k, cast(v as text) as v from denokv_state where k = 'database_id' or k glob 'backup_*'",
    ).all();
    return rows.map((row) => [String(row.k), String(row.v)]);
  }

  /** Those that are texts or numbers. */
  all(): Map<string, string> {
    const rows = this.db.prepare(
      "select k, cast(v as text) as v from denokv_state where typeof(v) <> 'blob'",
    ).all();
    return new Map(rows.map((row) => [String(row.k), String(row.v)]));
  }

  set(name: string, value: string | number): void {
    this.upsert.run(name, value);
  }

  /** Takes up so much room, of the disk's as well where the file has none. */
  setRoom(sizeBytes: number): void {
    this.upsertRoom.run(sizeBytes);
  }

  removeRoom(): void {
    this.deleteRoom.run();
  }
}
