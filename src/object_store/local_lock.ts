/** One lock over a folder of objects, for the short last step of a write. */

/**
 * An exclusive lock on a file, which the system gives up when its holder
 * dies. Within this process the waiters form one queue, so that at most one
 * of the runtime's threads waits for the file.
 */
export class FolderLock {
  #last: Promise<void> = Promise.resolve();

  constructor(readonly path: string) {}

  /**
   * Runs `work` under the lock. Work that was not begun when the signal
   * aborts is not begun any more.
   */
  async hold<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    const before = this.#last;
    const turn = Promise.withResolvers<void>();
    this.#last = turn.promise;
    try {
      await before;
      signal.throwIfAborted();
      // The file lies in a folder that is made at opening and not again: on
      // a share that went away this fails.
      using file = await Deno.open(this.path, { create: true, write: true });
      await file.lock(true);
      signal.throwIfAborted();
      return await work();
    } finally {
      turn.resolve();
    }
  }
}
