/**
 * A line in which everyone takes turns: whoever has many waiting does not keep
 * the others from their first. Each keeps the order of their own.
 */
export class FairLine<T> {
  private readonly lines = new Map<string, T[]>();
  private count = 0;

  get size(): number {
    return this.count;
  }

  /** @param who whose turn it takes */
  push(who: string, item: T): void {
    const line = this.lines.get(who);
    if (line) line.push(item);
    else this.lines.set(who, [item]);
    this.count++;
  }

  /** The next one; undefined where nobody waits. */
  peek(): T | undefined {
    for (const line of this.lines.values()) return line[0];
  }

  /** Takes the next one out; its owner's turn comes after everyone else's. */
  shift(): T | undefined {
    for (const [who, line] of this.lines) {
      const item = line.shift();
      this.count--;
      this.lines.delete(who);
      if (line.length > 0) this.lines.set(who, line);
      return item;
    }
  }

  /** Takes one out that waits no longer; nothing where it is not there. */
  remove(who: string, item: T): void {
    const line = this.lines.get(who);
    const at = line?.indexOf(item) ?? -1;
    if (line === undefined || at < 0) return;
    line.splice(at, 1);
    this.count--;
    if (line.length === 0) this.lines.delete(who);
  }
}
