/** Counts values by upper bound: cheap enough for every request. */
export class Histogram {
  readonly counts: number[];
  sum = 0;

  /** @param bounds ascending upper bounds, inclusive */
  constructor(readonly bounds: readonly number[]) {
    this.counts = new Array(bounds.length + 1).fill(0);
  }

  observe(value: number): void {
    const { bounds } = this;
    let i = 0;
    while (i < bounds.length && value > bounds[i]) i++;
    this.counts[i]++;
    this.sum += value;
  }

  /** A copy that later observations do not change. */
  snapshot(): { bounds: readonly number[]; counts: number[]; sum: number } {
    return { bounds: this.bounds, counts: [...this.counts], sum: this.sum };
  }
}
