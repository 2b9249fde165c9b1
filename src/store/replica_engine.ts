/**
 * An engine whose database on this machine follows a history that another
 * server writes, and is read meanwhile.
 */
import type { Bytes } from "../common/bytes.ts";
import type { EngineLock } from "./local_engine.ts";
import type { ReplicaWriter } from "./replica_writer.ts";
import type { LocalDatabase, RestoreTarget } from "./restore_target.ts";
import type { Store } from "./store.ts";

/** Reads and watches over a file that a {@linkcode ReplicaWriter} writes. */
export interface ReplicaReader extends Store {
  /** Watches are told at once; undefined: anything may have changed. */
  applied(keys: Iterable<Bytes> | undefined): void;
  /** How many are open. */
  readonly watches: number;
  /**
   * Its connection is closed in this turn.
   * @param reason what watches are told, as a sentence
   */
  close(reason?: string): Promise<void>;
}

export interface ReplicaEngine {
  /** Whether what is replaced is kept, so that the file can go back in time. */
  readonly keepsHistory: boolean;

  /**
   * Takes the database for this process alone.
   * @throws StartupError where another has it
   */
  lock(): EngineLock;

  /** Undefined where there is none. Only under the lock, as everything below. */
  inspect(): LocalDatabase | undefined;

  /**
   * A new database beside the present one, which goes on being read. It takes
   * the other's place with `install`.
   */
  create(signal?: AbortSignal): Promise<RestoreTarget>;

  /**
   * The one that was made beside takes the place of the present one, in this
   * turn. No writer and no reader may be open but reads under way. Resolves when
   * the former one is removed.
   * @throws whatever the disk says, in this turn; the present one is then as it
   *   was, or there is none
   */
  install(): Promise<void>;

  /** @throws StartupError */
  openWriter(): Promise<ReplicaWriter>;

  /** @throws StartupError */
  openReader(): ReplicaReader;
}
