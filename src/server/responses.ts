/** Answers that more than one entrance gives. */

/** A sentence for a person. */
export function text(
  status: number,
  sentence: string,
  headers: [string, string][] = [],
): Response {
  return new Response(sentence + "\n", {
    status,
    headers: [
      ["content-type", "text/plain; charset=utf-8"],
      ["x-content-type-options", "nosniff"],
      ...headers,
    ],
  });
}

export function json(status: number, value: unknown): Response {
  return new Response(JSON.stringify(value) + "\n", {
    status,
    headers: [
      ["content-type", "application/json"],
      ["cache-control", "no-store"],
    ],
  });
}
