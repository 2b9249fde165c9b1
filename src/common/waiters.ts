/** The one list of those who wait until a version is reached. */

/** Versions are asked for in any order, and reached in ascending order. */
export class Waiters {
  /** Sorted by version. */
  private readonly waiting: {
    version: number;
    resolve(): void;
    reject(error: Error): void;
  }[] = [];

  get size(): number {
    return this.waiting.length;
  }

  /**
   * Resolves when `version` is reached; rejects with what `fail` is given.
   * @param signal ends the wait, with its reason
   */
  wait(version: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    return new Promise((resolve, reject) => {
      const { waiting } = this;
      // Nearly always the newest: then the loop ends at once.
      let at = waiting.length;
      while (at > 0 && waiting[at - 1].version > version) at--;
      const waiter = { version, resolve, reject };
      waiting.splice(at, 0, waiter);
      if (signal === undefined) return;
      const end = () => {
        const at = waiting.indexOf(waiter);
        if (at >= 0) waiting.splice(at, 1);
        reject(signal.reason);
      };
      const forget = () => signal.removeEventListener("abort", end);
      waiter.resolve = () => (forget(), resolve());
      waiter.reject = (error) => (forget(), reject(error));
      signal.addEventListener("abort", end);
    });
  }

  reached(version: number): void {
    const { waiting } = this;
    let count = 0;
    while (count < waiting.length && waiting[count].version <= version) count++;
    for (const { resolve } of waiting.splice(0, count)) resolve();
  }

  fail(error: Error): void {
    for (const { reject } of this.waiting.splice(0)) reject(error);
  }
}
