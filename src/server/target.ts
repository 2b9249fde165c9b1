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

/** A name, an IPv4 or a bracketed IPv6 address, and perhaps a port (RFC 3986). */
const HOST = /^(?:[\w.~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::\d{0,5})?$/;
const MAX_HOST_CHARS = 262;

/** The last Host that was found good: a client sends the same each time. */
let goodHost = "";

/**
 * @param url as the runtime made it, not normalised
 * @param host the Host header, which HTTP/2 may do without
 * @returns undefined where the Host is none, or the scheme is another
 */
export function targetOf(url: string, host: string | null): Target | undefined {
  if (host !== null && host !== goodHost) {
    if (host.length > MAX_HOST_CHARS || !HOST.test(host)) return undefined;
    goodHost = host;
  }
  const start = url.startsWith("http://")
    ? 7
    : url.startsWith("https://")
    ? 8
    : -1;
  if (start < 0) return undefined;
  // A target may carry an authority of its own, so the Host may not be there.
  const pathAt = endOfAuthority(url, start);
  if (url[pathAt] !== "/") {
    // `*`, as OPTIONS has it, or nothing at all.
    return { path: "/", query: url.slice(pathAt + 1) };
  }
  const queryAt = url.indexOf("?", pathAt);
  return queryAt < 0
    ? { path: url.slice(pathAt), query: "" }
    : { path: url.slice(pathAt, queryAt), query: url.slice(queryAt + 1) };
}

function endOfAuthority(url: string, start: number): number {
  for (let at = start; at < url.length; at++) {
    const code = url.charCodeAt(at);
    if (code === 0x2f || code === 0x3f || code === 0x23) return at;
  }
  return url.length;
}
