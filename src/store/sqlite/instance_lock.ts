/**
 * One server per database file. The lock is on a file of its own: while a
 * SQLite connection is open, opening and closing the database file itself
 * would drop SQLite's locks, which belong to the process and not to the
 * descriptor.
 */
import { utf8 } from "../../common/bytes.ts";
import { messageOf, StartupError } from "../../common/errors.ts";
import { PRIVATE_FILE_MODE } from "../../common/files.ts";
import { missingPermission } from "../../common/permissions.ts";
import { placeProblem } from "./unopened.ts";

export interface InstanceLock {
  /** The device and the number of the lock file; a copy has another one. */
  readonly identity: string | undefined;
  /** Twice is harmless: whoever opens under a lock gives it back on failure. */
  release(): void;
  /**
   * Keeps a durable version of this database in the lock file, which an older
   * copy that takes the database's place does not bring along.
   */
  noteVersion(databaseId: string, version: number): void;
  /** What was last noted of it; undefined where nothing sensible was. */
  notedVersion(databaseId: string): number | undefined;
}

/**
 * The lock of one that goes on in another's place, in one process: until it is
 * passed on, to release it releases nothing.
 */
export class LentLock implements InstanceLock {
  private state: "lent" | "passed" | "released" = "lent";

  constructor(private readonly lock: InstanceLock) {}

  get isReleased(): boolean {
    return this.state === "released";
  }

  get identity(): string | undefined {
    return this.lock.identity;
  }

  passOn(): void {
    if (this.state === "lent") this.state = "passed";
  }

  release(): void {
    if (this.state !== "passed") return;
    this.state = "released";
    this.lock.release();
  }

  noteVersion(databaseId: string, version: number): void {
    this.lock.noteVersion(databaseId, version);
  }

  notedVersion(databaseId: string): number | undefined {
    return this.lock.notedVersion(databaseId);
  }
}

/** A database id, and a version as 16 hexadecimal digits. */
const NOTE = /^([0-9a-f-]{36}) ([0-9a-f]{16})\n/;
const NOTE_BYTES = 54;

/** The file whose lock stands for the database. */
export function lockFile(databasePath: string): string {
  return `${databasePath}-lock`;
}

/** @throws StartupError where another server has the database open */
export function lockInstance(databasePath: string): InstanceLock {
  const path = lockFile(databasePath);
  let file: Deno.FsFile;
  try {
    file = Deno.openSync(path, {
      create: true,
      read: true,
      write: true,
      mode: PRIVATE_FILE_MODE,
    });
  } catch (error) {
    const missing = missingPermission(error);
    if (missing) throw new StartupError(`${missing} Nothing was opened.`);
    const problem = placeProblem(databasePath);
    throw new StartupError(
      problem === undefined
        ? `The lock file ${path} cannot be opened: ${
          messageOf(error)
        }. Nothing was opened; the folder has to be writable.`
        : `The database ${databasePath} cannot be opened. ${problem}`,
    );
  }
  if (!file.tryLockSync(true)) {
    file.close();
    throw new StartupError(
      `Another denokv server has ${databasePath} open (it holds ${path}). Nothing was opened or changed; stop that server first, or use another --sqlite-path.`,
    );
  }
  // The file stays: removing it would let two servers lock two files of one
  // name. The kernel frees the lock with the process, however it ends.
  let isHeld = true;
  const { dev, ino } = file.statSync();
  return {
    identity: ino ? `${dev}:${ino}` : undefined,
    release() {
      if (isHeld) file.close();
      isHeld = false;
    },
    noteVersion(databaseId, version) {
      const digits = version.toString(16).padStart(16, "0");
      try {
        file.seekSync(0, Deno.SeekMode.Start);
        file.writeSync(utf8(`${databaseId} ${digits}\n`));
      } catch {
        // A full disk, say: then an older note stands, which is as true.
      }
    },
    notedVersion(databaseId) {
      const bytes = new Uint8Array(NOTE_BYTES);
      file.seekSync(0, Deno.SeekMode.Start);
      const length = file.readSync(bytes) ?? 0;
      const note = NOTE.exec(
        new TextDecoder().decode(bytes.subarray(0, length)),
      );
      return note?.[1] === databaseId ? parseInt(note[2], 16) : undefined;
    },
  };
}
