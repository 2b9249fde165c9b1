/**
 * Shows how far long work is: a bar on a terminal, a line every few seconds in
 * a log. Amounts are in bytes, unless it is told how to name them.
 */
import type { Clock } from "../common/clock.ts";

const BAR_WIDTH = 30;
const TERMINAL_EVERY_MS = 100;
const LOG_EVERY_MS = 5000;

export interface ProgressOutput {
  isTerminal: boolean;
  write(text: string): void;
}

export class Progress {
  private readonly startedMs: number;
  private shownMs: number;
  private isShown = false;

  constructor(
    private readonly what: string,
    private readonly out: ProgressOutput,
    private readonly clock: Clock,
    private readonly amountOf: (amount: number) => string = formatBytes,
  ) {
    this.startedMs = this.shownMs = clock.monotonicMs();
  }

  update(done: number, total: number): void {
    const nowMs = this.clock.monotonicMs();
    const { isTerminal } = this.out;
    const everyMs = isTerminal ? TERMINAL_EVERY_MS : LOG_EVERY_MS;
    if (nowMs - this.shownMs < everyMs) return;
    this.shownMs = nowMs;
    const text = this.line(done, total, nowMs - this.startedMs);
    this.out.write(isTerminal ? `\r\x1b[K${text}` : `${text}\n`);
    this.isShown = true;
  }

  private line(done: number, total: number, tookMs: number): string {
    const part = total === 0 ? 1 : Math.min(done / total, 1);
    const percent = `${Math.floor(part * 100)} %`.padStart(5);
    const { amountOf } = this;
    const rate = `${amountOf(done / Math.max(tookMs, 1) * 1000)}/s`;
    const amount = `${amountOf(done)} of ${amountOf(total)}, ${rate}`;
    if (!this.out.isTerminal) return `${this.what}: ${percent}, ${amount}`;
    const filled = Math.round(part * BAR_WIDTH);
    const bar = "#".repeat(filled) + "-".repeat(BAR_WIDTH - filled);
    return `${this.what} [${bar}] ${percent}, ${amount}`;
  }

  /** Leaves the terminal's line free. */
  end(): void {
    if (this.isShown && this.out.isTerminal) this.out.write("\r\x1b[K");
  }
}

export function formatBytes(sizeBytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (sizeBytes >= 1024 && unit < units.length - 1) {
    sizeBytes /= 1024;
    unit++;
  }
  const digits = unit === 0 || sizeBytes >= 100 ? 0 : 1;
  return `${sizeBytes.toFixed(digits)} ${units[unit]}`;
}

/** On standard error, which a script's output does not pass through. */
export function standardError(): ProgressOutput {
  return {
    isTerminal: Deno.stderr.isTerminal(),
    write(text) {
      try {
        Deno.stderr.writeSync(new TextEncoder().encode(text));
      } catch {
        // Nobody looks at it any more.
      }
    },
  };
}
