/**
 * What runs in a restore's thread: the connection to the file that is built,
 * so that no insertion, no index and no commit of a large file holds up whoever
 * serves requests beside it.
 *
 * Handed to the Worker as text, as the checkpointer's program is and for the
 * same reason.
 */
import type { DatabaseSync } from "node:sqlite";
import { digestOf, digestOfQueue } from "./queue.ts";
import { type RestoreBatch, RestoreTable } from "./restore_table.ts";

export type RestoreRequest =
  | RestoreBatch
  /** The index, and the commit. */
  | { kind: "finish" };

export type RestoreReply =
  | { kind: "done" }
  | { kind: "finished"; queueContents: string }
  | { kind: "failed"; message: string };

export interface RestoreTask {
  path: string;
  /** Brings the file into the state in which it is loaded. */
  begin: string;
  /** Makes of it what it should be, and commits it. */
  end: string;
}

interface Scope {
  onmessage: (event: { data: RestoreRequest }) => void;
  postMessage(reply: RestoreReply): void;
}

interface Tools {
  Database: typeof DatabaseSync;
  RestoreTable: typeof RestoreTable;
  digestOfQueue: typeof digestOfQueue;
}

/** Stands alone: nothing outside its own text is within its reach. */
function work(tools: Tools, task: RestoreTask, scope: Scope) {
  let db: DatabaseSync | undefined;
  let table: RestoreTable | undefined;
  function carryOut(request: RestoreRequest): RestoreReply {
    if (db === undefined) {
      db = new tools.Database(task.path);
      db.exec(task.begin);
    }
    table ??= new tools.RestoreTable(db);
    if (request.kind === "batch") {
      table.put(request);
      // Not left to the collector, which would let many of them gather.
      request.bytes.buffer.transfer(0);
      request.rows.buffer.transfer(0);
      return { kind: "done" };
    }
    db.exec(task.end);
    const opened = db;
    const queueContents = tools.digestOfQueue((sql) => {
      const statement = opened.prepare(sql);
      (statement as unknown as { setReturnArrays(on: boolean): void })
        .setReturnArrays(true);
      return statement.iterate() as Iterable<unknown>;
    }).toString(16);
    db.close();
    return { kind: "finished", queueContents };
  }

  let hasFailed = false;
  scope.onmessage = (event) => {
    // The first failure is told; what was sent before it was known is dropped.
    if (hasFailed) return;
    try {
      scope.postMessage(carryOut(event.data));
    } catch (error) {
      hasFailed = true;
      if (db?.isOpen) db.close();
      const message = error instanceof Error ? error.message : String(error);
      scope.postMessage({ kind: "failed", message });
    }
  };
}

/** The URL of a Worker that carries the task out. */
export function restoreWorkerUrl(task: RestoreTask): string {
  const source = `import { DatabaseSync } from "node:sqlite";
const digestOf = ${digestOf.toString()};
const digestOfQueue = ${digestOfQueue.toString()};
const RestoreTable = ${RestoreTable.toString()};
(${work.toString()})({ Database: DatabaseSync, RestoreTable, digestOfQueue }, ${
    JSON.stringify(task)
  }, self);`;
  return "data:application/javascript," + encodeURIComponent(source);
}
