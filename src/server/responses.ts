/** Answers that more than one entrance gives. */

import { utf8 } from "../common/bytes.ts";

/** A sentence for a person. */
export function text(
  status: number,
  sentence: string,
  headers: [string, string][] = [],
): Response {
  const body = utf8(sentence + "\n");
  return new Response(body, {
    status,
    headers: [
      ["content-type", "text/plain; charset=utf-8"],
      // For HEAD, whose answer has no other way to tell.
      ["content-length", String(body.length)],
      ["x-content-type-options", "nosniff"],
      ...headers,
    ],
  });
}

export function json(status: number, value: unknown): Response {
  const body = utf8(JSON.stringify(value) + "\n");
  return new Response(body, {
    status,
    headers: [
      ["content-type", "application/json"],
      ["content-length", String(body.length)],
      ["cache-control", "no-store"],
    ],
  });
}
