/**
 * Answers that must not be waited for without end: each gets one in time, and
 * what it waited for goes on. One timer looks after all of them, so that a wait
 * costs nothing but its entry.
 */
import type { Clock, Timer } from "../common/clock.ts";
import { UnavailableError } from "../common/errors.ts";

const LOOK_EVERY_MS = 500;

interface Wait {
  untilMs: number;
  sentence: string;
  isStuck(): boolean;
  isOver: boolean;
  reject(error: Error): void;
}

export class BoundedWaits {
  private waits: Wait[] = [];
  private timer: Timer | undefined;

  constructor(
    private readonly clock: Clock,
    private readonly timeoutMs: number,
  ) {}

  /**
   * Settles as `work` does, or rejects when the time is up before; whatever
   * becomes of it then is dropped.
   * @param sentence says what was waited for and what state the data is in
   * @param isStuck whether it waits in vain when the time is up; else it goes on
   * @throws UnavailableError with that sentence
   */
  run<T>(
    work: Promise<T>,
    sentence: string,
    isStuck = () => true,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const untilMs = this.clock.monotonicMs() + this.timeoutMs;
      const wait = { untilMs, sentence, isStuck, isOver: false, reject };
      this.waits.push(wait);
      this.timer ??= this.clock.after(LOOK_EVERY_MS, this.look);
      work.then((value) => {
        wait.isOver = true;
        resolve(value);
      }, (error) => {
        wait.isOver = true;
        reject(error);
      });
    });
  }

  private readonly look = () => {
    const nowMs = this.clock.monotonicMs();
    this.waits = this.waits.filter((wait) => {
      if (wait.isOver) return false;
      if (nowMs < wait.untilMs || !wait.isStuck()) return true;
      wait.reject(new UnavailableError(wait.sentence));
      return false;
    });
    this.timer = this.waits.length === 0
      ? undefined
      : this.clock.after(LOOK_EVERY_MS, this.look);
  };
}
