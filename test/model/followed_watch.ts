/**
 * A watch of the store beside the model's history: every state it hands out
 * must be one that the model was in, in the right order, and once all is
 * quiet the last one must be the present.
 */
import assert from "node:assert/strict";
import type { Store, Watch, WatchState } from "../../src/store/store.ts";
import { describeEntry, describeRow, type Snapshot } from "./model.ts";

export class FollowedWatch {
  private readonly watch: Watch;
  private readonly states: WatchState[] = [];
  private last: string[] | undefined;
  private pending: Promise<void> | undefined;
  private isOver = false;
  /** How far in the history the last state was. */
  private from: number;

  /**
   * @param isEager asks for each next state at once; else only when told
   * @param history as for `check`
   */
  constructor(
    store: Store,
    readonly keys: readonly string[],
    readonly isEager: boolean,
    history: readonly Snapshot[],
  ) {
    this.from = history.length - 1;
    this.watch = store.watch(keys.map((key) => Uint8Array.fromHex(key)));
    this.ask();
  }

  /** Asks for the next state, unless one is being waited for. */
  ask(): void {
    if (this.pending || this.isOver) return;
    this.pending = this.watch.next().then((state) => {
      this.pending = undefined;
      if (state === null) return;
      this.states.push(state);
      if (this.isEager) this.ask();
    }, (error) => {
      this.pending = undefined;
      if (!this.isOver) throw error;
    });
  }

  /**
   * Checks what came since the last call.
   * @param history the states the model went through, the present one last;
   *   nothing else happens now
   * @returns whether the watch has arrived at the present
   */
  check(history: readonly Snapshot[]): boolean {
    for (const state of this.states.splice(0)) {
      const seen = state.entries.map((entry) =>
        entry === null ? "absent" : describeEntry(entry)
      );
      const before = this.last;
      const changed = seen.map((text, i) => text !== before?.[i]);
      assert.deepEqual(state.changed, changed, "what a watch says has changed");
      assert.ok(changed.some(Boolean), "a watch state without news");
      while (
        this.from < history.length && !isSame(this.at(history[this.from]), seen)
      ) {
        this.from++;
      }
      assert.ok(
        this.from < history.length,
        `a watch state that never was, or came too late: ${seen.join(" ")}`,
      );
      this.last = seen;
    }
    const present = this.at(history[history.length - 1]);
    return this.last !== undefined && isSame(this.last, present);
  }

  /** The history begins anew, with the present. */
  forgetHistory(): void {
    this.from = 0;
  }

  cancel(): void {
    this.isOver = true;
    this.watch.cancel();
  }

  private at(snapshot: Snapshot): string[] {
    return this.keys.map((key) => {
      const row = snapshot.get(key);
      return row ? describeRow(key, row) : "absent";
    });
  }
}

function isSame(a: readonly string[], b: readonly string[]): boolean {
  return a.every((text, i) => text === b[i]);
}
