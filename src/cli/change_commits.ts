/** Whole commits out of a change feed's JSON lines (docs/changes.md). */
import { StartupError } from "../common/errors.ts";
import { member } from "./ask.ts";

/** What a line says, as far as this program reads it. */
export interface FeedLine {
  /** As it came, without its end. */
  text: string;
  json: unknown;
}

export type FeedPart =
  /** All lines of one commit. */
  | { kind: "commit"; versionstamp: string; lines: FeedLine[] }
  /** Everything up to this versionstamp has been sent. */
  | { kind: "heartbeat"; versionstamp: string; lines: FeedLine[] }
  /** The feed cannot go on. */
  | { kind: "end"; status: number; message: string };

/** A largest commit, and how much longer its JSON may be than its bytes. */
const MAX_COMMIT_CHARS = 64 * 1024 * 1024;

export class CommitReader {
  private rest = "";
  private commit: FeedLine[] = [];
  private chars = 0;

  /**
   * What is whole now; the beginning of a line or of a commit is kept.
   * @throws StartupError where the lines are no change feed's
   */
  push(text: string): FeedPart[] {
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop()!;
    const parts: FeedPart[] = [];
    for (const line of lines) {
      const part = this.line(line);
      if (part) parts.push(part);
    }
    if (this.rest.length + this.chars > MAX_COMMIT_CHARS) throw notOurs();
    return parts;
  }

  private line(text: string): FeedPart | undefined {
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch {
      throw notOurs();
    }
    const type = member(json, "type");
    if (type === "end") {
      return {
        kind: "end",
        status: Number(member(json, "status")),
        message: String(member(json, "message")),
      };
    }
    const versionstamp = member(json, "versionstamp");
    if (typeof versionstamp !== "string") throw notOurs();
    if (type === "heartbeat") {
      return { kind: "heartbeat", versionstamp, lines: [{ text, json }] };
    }
    this.commit.push({ text, json });
    this.chars += text.length;
    if (member(json, "last") !== true) return undefined;
    const lines = this.commit;
    this.commit = [];
    this.chars = 0;
    return { kind: "commit", versionstamp, lines };
  }
}

function notOurs(): StartupError {
  return new StartupError(
    "What came is no change feed of a denokv server, or one of another version. What was printed before it is whole; check --url.",
  );
}
