/**
 * The only place that reads the clock or starts a timer. Everything else is
 * handed a {@linkcode Clock}, so that tests of time can be repeated exactly.
 */
import { clearImmediate, setImmediate } from "node:timers";

/** A timer that was started and can be stopped; stopping twice is harmless. */
export interface Timer {
  stop(): void;
}

export interface Clock {
  /** Milliseconds since the Unix epoch, a whole number. */
  nowMs(): number;
  /** Milliseconds since some fixed moment, with fractions; never goes back. */
  monotonicMs(): number;
  /** Calls `fire` once, `delayMs` from now. The process may exit before it. */
  after(delayMs: number, fire: () => void): Timer;
  /** Calls `fire` every `intervalMs`. The process may exit between two calls. */
  every(intervalMs: number, fire: () => void): Timer;
  /**
   * Calls `fire` when the present turn of the event loop has handed out all
   * input that had arrived: how concurrent requests are gathered without
   * making a lonely one wait.
   */
  endOfTurn(fire: () => void): Timer;
}

/**
 * The longest delay that the runtime's timers take; a longer one would fire
 * at once. Callers re-arm: a clock may be set anew in 24 days anyway.
 */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Until someone takes it, the process ends with it, as with any other error. */
let timerFailed: (error: unknown) => void = (error) => {
  throw error;
};

/**
 * What becomes of an error that a timer's function throws: nobody called it, so
 * nobody else can take it. An interval goes on.
 */
export function onTimerFailure(handle: (error: unknown) => void): void {
  timerFailed = handle;
}

function run(fire: () => void): void {
  try {
    fire();
  } catch (error) {
    timerFailed(error);
  }
}

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, fire) {
    const id = setTimeout(
      run,
      Math.min(Math.max(0, delayMs), MAX_TIMER_MS),
      fire,
    );
    Deno.unrefTimer(id);
    return { stop: () => clearTimeout(id) };
  },
  every(intervalMs, fire) {
    const id = setInterval(run, intervalMs, fire);
    Deno.unrefTimer(id);
    return { stop: () => clearInterval(id) };
  },
  endOfTurn(fire) {
    const id = setImmediate(run, fire);
    return { stop: () => clearImmediate(id) };
  },
};

/** Resolves after `delayMs` of the given clock. */
export function sleep(clock: Clock, delayMs: number): Promise<void> {
  return new Promise((resolve) => clock.after(delayMs, resolve));
}

/**
 * Resolves after `delayMs`, or when the signal ends it; it does not reject.
 */
export function sleepUntil(
  clock: Clock,
  delayMs: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (signal === undefined) return sleep(clock, delayMs);
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const end = () => {
      timer.stop();
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = clock.after(delayMs, end);
    signal.addEventListener("abort", end);
  });
}
