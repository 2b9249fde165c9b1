/** A few named values of ours, kept in the database (`denokv_state`). */
import type { DatabaseSync, StatementSync } from "node:sqlite";

export class StateTable {
  private readonly select: StatementSync;
  private readonly upsert: StatementSync;
  private readonly upsertRoom: StatementSync;
  private readonly deleteRoom: StatementSync;

  constructor(db: DatabaseSync) {
    this.select = db.prepare("select v from denokv_state where k = ?");
    this.upsert = db.prepare(
      "insert into denokv_state (k, v) values (?, ?) on conflict (k) do update set v = excluded.v",
    );
    this.upsertRoom = db.prepare(
      "insert into denokv_state (k, v) values ('room', randomblob(?)) on conflict (k) do update set v = excluded.v",
    );
    this.deleteRoom = db.prepare("delete from denokv_state where k = 'room'");
  }

  getText(name: string): string | undefined {
    const value = this.select.get(name)?.v;
    return value === undefined ? undefined : String(value);
  }

  getNumber(name: string): number | undefined {
    const value = this.select.get(name)?.v;
    return value === undefined ? undefined : Number(value);
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
