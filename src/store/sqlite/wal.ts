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

export class WalFile {
  private file: Deno.FsFile;

  constructor(readonly path: string) {
    this.file = Deno.openSync(path, { read: true, write: true });
  }

  /**
   * Makes everything written to the log so far durable. Runs on a thread of
   * the runtime's pool. After a rejection the log's contents are in doubt.
   */
  sync(): Promise<void> {
    return this.file.syncData();
  }

  close(): void {
    this.file.close();
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
