/**
 * A full disk: what is still taken, and what has to hold before everything is
 * taken again (docs/decisions/full-disk.md).
 */
import { messageOf, UnavailableError } from "../../common/errors.ts";
import { type AtomicWrite, MutationType } from "../../protocol/messages.ts";
import type { DiskReserve } from "./disk_reserve.ts";
import type { WriteSession } from "./session.ts";

/** As much as the largest atomic writes put into the log: the proof of room. */
export const ROOM_BYTES = 4 * 1024 * 1024;

/** Of the reserve, what no checkpoint may take from deletions. */
const DELETION_BYTES = 8 * 1024 * 1024;

export function isDiskFull(error: unknown): boolean {
  return /disk is full|no space left|disk quota exceeded/i.test(
    messageOf(error),
  );
}

/** Whether a write needs no more room than the reserve has for it. */
export function onlyDeletes(write: AtomicWrite | null): boolean {
  // Null is a batch of expiry deletions.
  return write === null ||
    write.enqueues.length === 0 &&
      write.mutations.every(({ type }) => type === MutationType.DELETE);
}

export function fullDisk(): UnavailableError {
  return new UnavailableError(
    "The disk is full. Nothing of this write was kept; everything acknowledged is kept and can be read. Only deletions are taken until there is room: free space on the server's disk, or delete entries.",
  );
}

export function noRoomAtAll(): UnavailableError {
  return new UnavailableError(
    "The disk is full, and there is no room left even for deletions. Nothing of this write was kept; everything acknowledged is kept and can be read. Free space on the server's disk.",
  );
}

/**
 * Whether a checkpoint may run while the disk is full: the database file may
 * have to grow by as much as is in the log. One that fails for that takes the
 * room all the same, and deletions would have none.
 */
export function mayCheckpoint(walBytes: number, reserve: DiskReserve): boolean {
  return reserve.sizeBytes === 0 ||
    walBytes <= reserve.sizeBytes - DELETION_BYTES;
}

export interface RoomDeps {
  session: WriteSession;
  writer: {
    /** Holds commits back until the returned function is called. */
    hold(): () => void;
    /** A commit of so many bytes that leaves nothing behind. */
    probe(sizeBytes: number): void;
  };
  reserve: DiskReserve;
  walBytes: number;
  /** Of the log, off this thread. */
  sync(): Promise<void>;
  emptyLog(): void;
}

/**
 * Proves that there is room again: the reserve stands, and a write of a usual
 * size holds beside it. Deletions wait meanwhile, for some 100 ms; where this
 * fails they have the reserve as before.
 * @throws Error where there is no room
 */
export async function proveRoom(deps: RoomDeps): Promise<void> {
  const { session, writer, reserve } = deps;
  const release = writer.hold();
  try {
    if (mayCheckpoint(deps.walBytes, reserve)) {
      // What is not certain in the log must not get into the database.
      await deps.sync();
      // What the database file grows by, the log gives back.
      deps.emptyLog();
    }
    const { sizeBytes } = reserve;
    // Pages that wait for reuse are room that the file system knows nothing of.
    const needed = session.freeBytes() >= sizeBytes ? sizeBytes / 2 : sizeBytes;
    if (!await reserve.fill(needed)) throw new Error("the disk is still full");
    writer.probe(ROOM_BYTES);
    await deps.sync();
    // It has to fit into the database file too; there its pages stay free.
    deps.emptyLog();
  } catch (error) {
    reserve.release();
    throw error;
  } finally {
    release();
  }
}
