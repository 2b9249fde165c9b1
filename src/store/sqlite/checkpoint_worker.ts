/**
 * What runs in the checkpointer's thread: a connection of its own that copies
 * the write-ahead log into the database when told to.
 *
 * The function is handed to the Worker as text, not as a module: a module
 * would need permission to read this program's own source.
 */
import type { DatabaseSync } from "node:sqlite";

export type CheckpointRequest =
  | { kind: "checkpoint" }
  | { kind: "close" };

export type CheckpointReply =
  | { kind: "done" }
  /** `hasBegun`: a part of the log may have been copied. */
  | { kind: "failed"; message: string; hasBegun: boolean }
  | { kind: "closed" };

/** The little of a Worker's global scope that is used here. */
interface Scope {
  onmessage: (event: { data: CheckpointRequest }) => void;
  postMessage(reply: CheckpointReply): void;
}

/** Stands alone: nothing outside its own text is within its reach. */
function work(Database: typeof DatabaseSync, path: string, scope: Scope) {
  let db: DatabaseSync | undefined;
  const open = () => {
    const opened = new Database(path);
    opened.exec(
      "pragma busy_timeout = 1000; pragma synchronous = normal; pragma cache_size = -64; pragma mmap_size = 0",
    );
    return opened;
  };
  scope.onmessage = (event) => {
    if (event.data.kind === "close") {
      db?.close();
      db = undefined;
      scope.postMessage({ kind: "closed" });
      return;
    }
    let hasBegun = false;
    try {
      db ??= open();
      // The checkpoint does this itself; but when the disk has failed, it is
      // better to know that nothing has been copied.
      const log = Deno.openSync(`${path}-wal`, { write: true });
      try {
        log.syncDataSync();
      } finally {
        log.close();
      }
      hasBegun = true;
      db.prepare("pragma wal_checkpoint(passive)").get();
      scope.postMessage({ kind: "done" });
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      scope.postMessage({ kind: "failed", message, hasBegun });
    }
  };
}

/** The URL of a Worker that checkpoints the database at `path`. */
export function checkpointWorkerUrl(path: string): string {
  const source = `import { DatabaseSync } from "node:sqlite";
(${work.toString()})(DatabaseSync, ${JSON.stringify(path)}, self);`;
  return "data:application/javascript," + encodeURIComponent(source);
}
