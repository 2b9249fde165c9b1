/** What Google Cloud Storage limits and its emulator does not, for a proxy. */
import type { Mishap, ProxiedRequest } from "./http_proxy.ts";

const LIMIT_MS = 1000;

/**
 * One write a second for each object, refused ones included; the next is
 * answered with 429.
 */
export class OneWriteASecond {
  /** How many requests were. */
  refused = 0;
  private readonly lastMs = new Map<string, number>();

  rule({ method, path }: ProxiedRequest): Mishap | undefined {
    const name = writtenName(method, path);
    if (name === undefined) return undefined;
    const nowMs = performance.now();
    const sinceMs = nowMs - (this.lastMs.get(name) ?? -Infinity);
    this.lastMs.set(name, nowMs);
    if (sinceMs >= LIMIT_MS) return undefined;
    this.refused++;
    const message =
      "The object exceeded the rate limit for object mutation operations.";
    return {
      kind: "answer",
      status: 429,
      body: JSON.stringify({ error: { code: 429, message } }),
    };
  }
}

/** The object that a request writes or deletes. */
function writtenName(method: string, path: string): string | undefined {
  const { pathname, searchParams } = new URL(path, "http://proxy");
  if (method === "POST" && pathname.startsWith("/upload/")) {
    // The first request of several writes nothing yet.
    return searchParams.get("uploadType") === "resumable"
      ? undefined
      : searchParams.get("name") ?? undefined;
  }
  if (method !== "DELETE") return undefined;
  return decodeURIComponent(pathname.slice(pathname.lastIndexOf("/") + 1));
}
