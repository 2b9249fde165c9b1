/** One lock over a folder of objects, for the short last step of a write. */
import { dirname, join } from "node:path";
import { messageOf, UnavailableError } from "../common/errors.ts";
import { isMissing } from "./local_files.ts";
import { OWN_FOLDER } from "./local_paths.ts";
import { ObjectStoreRefusedError } from "./object_store.ts";

/** How a file system says that it has no locks; ENOLCK comes without a code. */
const WITHOUT_LOCKS = new Set(["ENOTSUP", "EOPNOTSUPP", "ENOSYS", "ENOLCK"]);
const ENOLCK = /\bno locks available\b/i;

/**
 * An exclusive lock on a file, which the system gives up when its holder
 * dies. Within this process the waiters form one queue, so that at most one
 * of the runtime's threads waits for the file.
 *
 * Somebody may delete the file, and a new one of its name is another lock. So
 * the folder itself is locked too, where the file system does that (local
 * ones; NFS does not), and it is looked whether the file is the same after the
 * work: where it is not, nobody may rely on what came of it.
 */
export class FolderLock {
  readonly path: string;
  #last: Promise<void> = Promise.resolve();

  constructor(readonly folder: string) {
    this.path = join(folder, OWN_FOLDER, "lock");
  }

  /**
   * Runs `work` under the lock. Work that was not begun when the signal
   * aborts is not begun any more.
   * @throws ObjectStoreRefusedError where the file system has no locks
   * @throws UnavailableError where the file was deleted meanwhile
   */
  async hold<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const before = this.#last;
    const turn = Promise.withResolvers<void>();
    this.#last = turn.promise;
    try {
      await before;
      for (;;) {
        signal.throwIfAborted();
        // Its folder was looked at before: on a share that went away this
        // fails.
        using file = await Deno.open(this.path, { create: true, write: true });
        await this.#lock(file);
        signal.throwIfAborted();
        using _folder = await lockFolder(this.folder);
        signal.throwIfAborted();
        if (!await this.#isStill(file)) continue;
        const result = await work();
        if (await this.#isStill(file)) return result;
        throw new UnavailableError(
          `The lock file ${this.path} was deleted while something was written; look what became of it, and try again.`,
        );
      }
    } finally {
      turn.resolve();
    }
  }

  async #lock(file: Deno.FsFile): Promise<void> {
    try {
      await file.lock(true);
    } catch (error) {
      const hasNone = error instanceof Error &&
        ("code" in error && WITHOUT_LOCKS.has(String(error.code)) ||
          ENOLCK.test(error.message));
      if (!hasNone) throw error;
      throw new ObjectStoreRefusedError(
        `The file system of ${dirname(this.path)} has no file locks (${
          messageOf(error)
        }), so two instances could overwrite each other there. Mount it with locks, or use another place.`,
      );
    }
  }

  /** Whether the file that was locked still has its name. */
  async #isStill(file: Deno.FsFile): Promise<boolean> {
    const locked = await file.stat();
    try {
      const named = await Deno.stat(this.path);
      return named.ino === locked.ino && named.dev === locked.dev;
    } catch (error) {
      if (isMissing(error)) return false;
      throw error;
    }
  }
}

/** Best effort: the lock file is what counts where folders have no locks. */
async function lockFolder(
  folder: string,
): Promise<Disposable | undefined> {
  if (Deno.build.os === "windows") return undefined;
  const handle = await Deno.open(folder);
  await handle.lock(true).catch(() => {});
  return handle;
}
