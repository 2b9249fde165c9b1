/**
 * What a browser asks before a page of another origin may use REST or a change
 * feed: none may, unless `--cors-origin` names it. (fetch.spec.whatwg.org, "CORS protocol")
 */

const ALLOWED_METHODS = "GET, HEAD, POST, PUT, DELETE";
const ALLOWED_HEADERS =
  "authorization, content-type, if-none-match, last-event-id, x-denokv-min-versionstamp";
const EXPOSED_HEADERS = "etag, durable-local, durable-backup";
/** How long a browser may remember the answer to its question. */
const MAX_AGE_SECONDS = 600;

export class Cors {
  private readonly origins: ReadonlySet<string>;
  private readonly isOpen: boolean;

  /** @param origins as `https://app.example`; `*` stands for any */
  constructor(origins: readonly string[]) {
    this.origins = new Set(origins);
    this.isOpen = this.origins.has("*");
  }

  /** The answer to the question before a request; undefined where it is none. */
  preflight(request: Request): Response | undefined {
    const { headers } = request;
    if (request.method !== "OPTIONS") return undefined;
    if (!headers.has("access-control-request-method")) return undefined;
    const answer = new Response(null, { status: 204 });
    const origin = headers.get("origin");
    if (origin !== null && this.isAllowed(origin)) {
      answer.headers.set("access-control-allow-methods", ALLOWED_METHODS);
      answer.headers.set("access-control-allow-headers", ALLOWED_HEADERS);
      answer.headers.set("access-control-max-age", String(MAX_AGE_SECONDS));
    }
    return answer;
  }

  /** Says in an answer whether the page that asked may read it. */
  allow(request: Request, answer: Headers): void {
    const origin = request.headers.get("origin");
    if (origin === null) return;
    // A cache must not give one origin's answer to another.
    if (!this.isOpen) answer.append("vary", "origin");
    if (!this.isAllowed(origin)) return;
    answer.set("access-control-allow-origin", this.isOpen ? "*" : origin);
    answer.set("access-control-expose-headers", EXPOSED_HEADERS);
  }

  private isAllowed(origin: string): boolean {
    return this.isOpen || this.origins.has(origin);
  }
}
