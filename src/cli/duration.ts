/** Times as people write them: a whole number and a unit. */

const UNITS_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Undefined where the text is no time. */
export function durationMs(text: string): number | undefined {
  const match = /^(\d{1,12})(ms|s|m|h|d)$/.exec(text);
  if (match === null) return undefined;
  return Number(match[1]) * UNITS_MS[match[2] as keyof typeof UNITS_MS];
}

/** In the largest unit that shows it whole. */
export function formatDuration(valueMs: number): string {
  for (const [unit, unitMs] of Object.entries(UNITS_MS).reverse()) {
    if (valueMs >= unitMs && valueMs % unitMs === 0) {
      return `${valueMs / unitMs}${unit}`;
    }
  }
  return `${valueMs}ms`;
}
