/**
 * Large entries in the frames of watches: encoded once, however many clients
 * are to get them, kept until the last of them has, and counted once.
 */
import type { Budget } from "../common/budget.ts";
import { type Bytes, byteString } from "../common/bytes.ts";
import {
  encodeWatchEntry,
  isLargeEntry,
  watchEntrySize,
} from "../protocol/datapath_answers.ts";
import type { Entry } from "../protocol/messages.ts";

export interface Piece {
  readonly name: string;
  readonly bytes: Bytes;
  holders: number;
}

export class FramePieces {
  private readonly pieces = new Map<string, Piece>();

  constructor(private readonly budget: Budget) {}

  /** What a frame of these entries takes beside what others hold already. */
  newBytes(entries: readonly (Entry | null)[]): number {
    let sizeBytes = 0;
    const names = new Set<string>();
    for (const entry of entries) {
      if (entry === null || !isLargeEntry(entry)) continue;
      const name = nameOf(entry);
      // One key may be watched twice by one watch.
      if (this.pieces.has(name) || names.has(name)) continue;
      names.add(name);
      sizeBytes += watchEntrySize(entry);
    }
    return sizeBytes;
  }

  /** The piece of a large entry; its bytes were taken from the budget. */
  hold(entry: Entry): Piece {
    const name = nameOf(entry);
    let piece = this.pieces.get(name);
    if (piece === undefined) {
      piece = { name, bytes: encodeWatchEntry(entry), holders: 0 };
      this.pieces.set(name, piece);
    }
    piece.holders++;
    return piece;
  }

  release(piece: Piece): void {
    if (--piece.holders > 0) return;
    this.pieces.delete(piece.name);
    this.budget.give(piece.bytes.length);
  }
}

/** One state of one key. */
function nameOf({ key, version, order }: Entry): string {
  return `${version}/${order}/${byteString(key)}`;
}
