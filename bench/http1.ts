/**
 * Requests as bytes, because the load generator sends them as they are, and
 * one exchange over a plain connection that tells what exactly comes back.
 */

export interface Request {
  method: string;
  /** With its leading slash. */
  path: string;
  headers: Record<string, string>;
  body?: Uint8Array;
}

export interface Answer {
  status: number;
  body: Uint8Array;
  /** Everything that came over the connection: status line, headers, body. */
  sizeBytes: number;
}

/** The request on the wire, for the server at this URL. */
export function requestBytes(url: URL, request: Request): Uint8Array {
  const { method, path, headers, body } = request;
  const lines = [`${method} ${path} HTTP/1.1`, `host: ${url.host}`];
  for (const [name, value] of Object.entries(headers)) {
    lines.push(`${name}: ${value}`);
  }
  if (body) lines.push(`content-length: ${body.length}`);
  const head = new TextEncoder().encode(lines.join("\r\n") + "\r\n\r\n");
  const out = new Uint8Array(head.length + (body?.length ?? 0));
  out.set(head);
  if (body) out.set(body, head.length);
  return out;
}

/** Sends one request and reads its answer, which must tell its length. */
export async function exchange(url: URL, request: Request): Promise<Answer> {
  using connection = await Deno.connect({
    hostname: url.hostname,
    port: Number(url.port),
  });
  const writer = connection.writable.getWriter();
  await writer.write(requestBytes(url, request));
  let received = new Uint8Array(0);
  for await (const chunk of connection.readable) {
    received = append(received, chunk);
    const answer = parseAnswer(received);
    if (answer) return answer;
  }
  throw new Error("The connection ended before the answer was whole.");
}

function parseAnswer(received: Uint8Array): Answer | undefined {
  const text = new TextDecoder("latin1").decode(received);
  const headEnd = text.indexOf("\r\n\r\n");
  if (headEnd < 0) return undefined;
  const length = /\r\ncontent-length: *(\d+)\r\n/i.exec(
    text.slice(0, headEnd + 2),
  );
  if (!length) throw new Error(`No content-length in: ${text}`);
  const sizeBytes = headEnd + 4 + Number(length[1]);
  if (received.length < sizeBytes) return undefined;
  return {
    status: Number(text.split(" ", 2)[1]),
    body: received.subarray(headEnd + 4, sizeBytes),
    sizeBytes,
  };
}

function append(a: Uint8Array, b: Uint8Array): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(a.length + b.length);
  out.set(a);
  out.set(b, a.length);
  return out;
}
