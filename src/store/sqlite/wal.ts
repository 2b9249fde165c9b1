/**
 * The write-ahead log as a file: synced off the serving thread, and cut back
 * to its last durable commit when a sync has failed.
 *
 * Opening `-wal` beside SQLite is safe; only the database file and `-shm`
 * carry the locks that closing a descriptor would drop.
 */

/** WAL header, then frames of a header and a page each (sqlite.org/fileformat2.html). */
const WAL_HEADER_BYTES = 32;
const FRAME_HEADER_BYTES = 24;
/** Two numbers in the header, chosen anew whenever the log begins anew. */
const SALTS_AT = 16;
const SALTS_BYTES = 8;

/** Syncs of the log that may run at once. */
export const MAX_SYNCS = 4;

export class WalFile {
  private readonly files: readonly Deno.FsFile[];
  private next = 0;
  /** Of its own: on the others a sync may be under way. */
  private readonly header: Deno.FsFile;
  private readonly salts = new BigUint64Array(1);
  private readonly saltBytes = new Uint8Array(this.salts.buffer);

  constructor(readonly path: string) {
    // The runtime carries out one operation at a time on a file it has open:
    // with an fsync of 2 ms, four descriptors gave 3.5 times the writes of one.
    this.files = Array.from(
      { length: MAX_SYNCS },
      () => Deno.openSync(path, { read: true, write: true }),
    );
    this.header = Deno.openSync(path, { read: true });
    this.hasBegunAnew();
  }

  /**
   * Whether the log was begun anew since this was last asked, by whichever
   * program; its length alone does not tell. Costs 1.4 µs. False where the
   * header cannot be read.
   */
  hasBegunAnew(): boolean {
    const before = this.salts[0];
    try {
      this.header.seekSync(SALTS_AT, Deno.SeekMode.Start);
      const count = this.header.readSync(this.saltBytes);
      if (count !== SALTS_BYTES) this.salts[0] = before;
    } catch {
      this.salts[0] = before;
    }
    return this.salts[0] !== before;
  }

  /**
   * Makes everything written to the log so far durable, whichever descriptor
   * wrote it. Runs on a thread of the runtime's pool; up to `MAX_SYNCS` run at
   * once. After a rejection the log's contents are in doubt.
   */
  sync(): Promise<void> {
    this.next = (this.next + 1) % MAX_SYNCS;
    return this.files[this.next].syncData();
  }

  close(): void {
    for (const file of this.files) file.close();
    this.header.close();
  }
}

/** The length of a log of so many frames. */
export function walBytes(frames: number, pageBytes: number): number {
  return frames === 0
    ? 0
    : WAL_HEADER_BYTES + frames * (FRAME_HEADER_BYTES + pageBytes);
}

/**
 * Shortens a log; a sync has to follow before anything is built on it. Only
 * while no connection is open, in this or any process.
 */
export function cutLog(
  { walPath, lengthBytes }: { walPath: string; lengthBytes: number },
): void {
  using file = Deno.openSync(walPath, { write: true });
  if (file.statSync().size > lengthBytes) file.truncateSync(lengthBytes);
}
