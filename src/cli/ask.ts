/**
 * Asks a server, for the commands that need one. Whatever may answer at an
 * address, or not, becomes one of a few cases with a sentence for a person.
 */
import { type Clock, systemClock } from "../common/clock.ts";
import { messageOf } from "../common/errors.ts";
import { missingPermission } from "../common/permissions.ts";

export type Reply =
  | {
    kind: "answer";
    status: number;
    text: string;
    /** Undefined where the text is no JSON. */
    json: unknown;
  }
  /** Nobody answered; `why` is a sentence. */
  | { kind: "silent"; why: string }
  /** The runtime did not let us ask; `why` names the flag. */
  | { kind: "notAllowed"; why: string };

export interface AskOptions {
  method?: "GET" | "POST";
  headers?: Record<string, string>;
  /** Absent: as long as it takes. */
  timeoutMs?: number;
  clock?: Clock;
}

/** Of an answer so much is read: another program may send without an end. */
const MAX_ANSWER_BYTES = 64 * 1024;

export async function ask(
  url: string,
  { method, headers, timeoutMs, clock = systemClock }: AskOptions,
): Promise<Reply> {
  const late = new AbortController();
  const timer = timeoutMs === undefined
    ? undefined
    : clock.after(timeoutMs, () => late.abort());
  try {
    const answer = await fetch(url, {
      method,
      headers,
      signal: late.signal,
      redirect: "manual",
    });
    const text = (await readText(answer)).trim();
    return { kind: "answer", status: answer.status, text, json: jsonOf(text) };
  } catch (error) {
    const missing = missingPermission(error);
    if (missing !== undefined) return { kind: "notAllowed", why: missing };
    const why = late.signal.aborted
      ? `There was no answer within ${timeoutMs} ms.`
      : silence(error);
    return { kind: "silent", why };
  } finally {
    timer?.stop();
  }
}

async function readText(answer: Response): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let sizeBytes = 0;
  for await (const chunk of answer.body ?? []) {
    sizeBytes += chunk.length;
    text += decoder.decode(chunk, { stream: true });
    if (sizeBytes > MAX_ANSWER_BYTES) break;
  }
  return text;
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Its own words hide the reason in a cause. */
function silence(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined;
  const message = messageOf(cause ?? error).trim().replace(/[.\s]+$/, "");
  return /connection refused/i.test(message)
    ? "Nothing listens there."
    : `There was no good answer (${message}).`;
}

/** A member of a JSON object that came from outside. */
export function member(json: unknown, name: string): unknown {
  return typeof json === "object" && json !== null && Object.hasOwn(json, name)
    ? (json as Record<string, unknown>)[name]
    : undefined;
}
