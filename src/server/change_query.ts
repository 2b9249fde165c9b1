/** What a request for a change feed asks for: its query and its headers. */
import type { Bytes } from "../common/bytes.ts";
import { InvalidRequestError } from "../common/errors.ts";
import {
  parseVersionstampHex,
  versionstampHex,
} from "../protocol/versionstamp.ts";
import type { ChangeFormat } from "./change_lines.ts";
import { keyOfPath } from "./rest_key.ts";

export interface ChangeQuery {
  /** A version that its consumer has, or where else it begins. */
  from: number | "now" | "oldest";
  follows: boolean;
  format: ChangeFormat;
  /** Encoded keys. */
  prefixes: Bytes[];
}

/** More filters than these, and every mutation would be looked at for long. */
const MAX_PREFIXES = 10;
const EVENT_STREAM = "text/event-stream";

/**
 * @param rawQuery without its `?`
 * @throws InvalidRequestError, TooLargeError
 */
export function changeQuery(rawQuery: string, headers: Headers): ChangeQuery {
  const format = headers.get("accept")?.includes(EVENT_STREAM)
    ? "events"
    : "lines";
  const query: ChangeQuery = {
    from: "now",
    // An EventSource opens a stream that ends again and again.
    follows: format === "events",
    format,
    prefixes: [],
  };
  const given = new Set<string>();
  for (const [name, value] of new URLSearchParams(rawQuery)) {
    if (name === "prefix") {
      query.prefixes.push(prefixOf(value));
      continue;
    }
    if (given.has(name)) refuse(`The parameter ${name} is given twice.`);
    given.add(name);
    if (name === "from") query.from = pointOf(value, "from");
    else if (name === "follow") query.follows = flagOf(value);
    else {
      refuse("A change feed takes the parameters from, prefix and follow.");
    }
  }
  if (query.prefixes.length > MAX_PREFIXES) {
    refuse(`A change feed takes at most ${MAX_PREFIXES} prefixes.`);
  }
  // What a browser has got since; the address is the one it began with.
  const last = headers.get("last-event-id");
  if (last) query.from = pointOf(last, "Last-Event-ID");
  return query;
}

function pointOf(text: string, where: string): ChangeQuery["from"] {
  if (text === "now" || text === "oldest") return text;
  if (text === "0") return "oldest";
  const stamp = parseVersionstampHex(text);
  if (stamp === undefined) {
    refuse(
      `${where} has to be a versionstamp of 20 hexadecimal digits, as the feed gives them, or oldest, or now.`,
    );
  }
  return stamp.version;
}

function flagOf(text: string): boolean {
  if (text === "" || text === "true" || text === "1") return true;
  if (text === "false" || text === "0") return false;
  refuse("follow has to be true or false.");
}

function prefixOf(path: string): Bytes {
  if (!path.startsWith("/") || path.length < 2) {
    refuse("A prefix is written as a key of REST, as in prefix=/users/alice.");
  }
  if (path.endsWith("/")) {
    refuse(
      "A prefix is made of whole parts of a key, as in prefix=/users; the slash at its end would name one more part, an empty one: leave it out.",
    );
  }
  return keyOfPath(path);
}

function refuse(sentence: string): never {
  throw new InvalidRequestError(`${sentence} No feed was opened.`);
}

/** Why a feed cannot go on after this version, and from where it can. */
export function goneSentence(version: number, floorVersion: number): string {
  const oldest = versionstampHex(floorVersion, 0);
  return `The log no longer reaches back to ${
    versionstampHex(version, 0)
  }: the oldest versionstamp that a feed can begin after is ${oldest}. What lies between was committed and is in the database, but no longer in the log: read the present state once, as docs/changes.md has it, and go on with a feed from there.`;
}
