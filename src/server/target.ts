/**
 * What a request asks for, from its request line alone. The runtime joins
 * scheme, Host header and target to one URL without looking at them: a Host
 * such as `a/b` would lengthen the path.
 */

export interface Target {
  /** Still percent-encoded, as on the wire, beginning with `/`. */
  path: string;
  /** Without its `?`; empty where there is none. */
  query: string;
}

const SLASH = 0x2f;
const QUESTION_MARK = 0x3f;
const HASH = 0x23;

/** A name, an IPv4 or a bracketed IPv6 address, and perhaps a port (RFC 3986). */
const HOST = /^(?:[\w.~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::\d{0,5})?$/;
const MAX_HOST_CHARS = 262;

/** The last host that was found good: a client sends the same each time. */
let goodHost = "";

function isHost(host: string): boolean {
  if (host === goodHost) return true;
  if (host.length > MAX_HOST_CHARS || !HOST.test(host)) return false;
  goodHost = host;
  return true;
}

/**
 * @param url as the runtime made it, not normalised
 * @param host the Host header, which HTTP/2 may do without
 * @returns undefined where either names no host, or the scheme is another
 */
export function targetOf(url: string, host: string | null): Target | undefined {
  if (host !== null && !isHost(host)) return undefined;
  const start = url.startsWith("http://")
    ? 7
    : url.startsWith("https://")
    ? 8
    : -1;
  if (start < 0) return undefined;
  // A target may carry an authority of its own, and HTTP/2 does.
  let pathAt = start + goodHost.length;
  if (url.charCodeAt(pathAt) !== SLASH || !url.startsWith(goodHost, start)) {
    pathAt = endOfAuthority(url, start);
    if (!isHost(url.slice(start, pathAt))) return undefined;
  }
  if (pathAt === url.length) return { path: "/", query: "" };
  if (url[pathAt] !== "/") return undefined;
  const queryAt = url.indexOf("?", pathAt);
  return queryAt < 0
    ? { path: url.slice(pathAt), query: "" }
    : { path: url.slice(pathAt, queryAt), query: url.slice(queryAt + 1) };
}

function endOfAuthority(url: string, start: number): number {
  for (let at = start; at < url.length; at++) {
    const code = url.charCodeAt(at);
    if (code === SLASH || code === QUESTION_MARK || code === HASH) return at;
  }
  return url.length;
}
