/** A request of HTTP/1.1 as bytes, and its answer. */

const QUIET_MS = 15_000;

export interface RawAnswer {
  /** 0 where nothing came. */
  status: number;
  /** Names in lowercase. */
  headers: Map<string, string>;
  body: string;
}

export interface RawOptions {
  /** Closes the sending side after the request (a FIN). */
  halfClosed?: boolean;
  /** Of a HEAD there comes no body, whatever its length says. */
  bodiless?: boolean;
}

/** Sends the bytes and waits for one whole answer, or for the end. */
export async function rawHttp1(
  port: number,
  request: string,
  options: RawOptions = {},
): Promise<RawAnswer> {
  const connection = await Deno.connect({ hostname: "127.0.0.1", port });
  const quiet = setTimeout(() => connection.close(), QUIET_MS);
  const decoder = new TextDecoder("latin1");
  const part = new Uint8Array(65_536);
  let text = "";
  try {
    const bytes = new TextEncoder().encode(request);
    for (let at = 0; at < bytes.length;) {
      at += await connection.write(bytes.subarray(at));
    }
    if (options.halfClosed) await connection.closeWrite();
    while (!isWhole(text, options)) {
      const count = await connection.read(part);
      if (count === null) break;
      text += decoder.decode(part.subarray(0, count));
    }
  } catch {
    // Reset: what came before that is the answer.
  } finally {
    clearTimeout(quiet);
    try {
      connection.close();
    } catch {
      // Closed because it was quiet.
    }
  }
  return parsed(text);
}

function isWhole(text: string, { bodiless }: RawOptions): boolean {
  const { status, headers, body } = parsed(text);
  if (status === 0 || !text.includes("\r\n\r\n")) return false;
  const length = headers.get("content-length");
  if (bodiless) return true;
  if (length !== undefined) return body.length >= Number(length);
  return headers.get("transfer-encoding") === "chunked" &&
    body.endsWith("0\r\n\r\n");
}

function parsed(text: string): RawAnswer {
  const at = text.indexOf("\r\n\r\n");
  const [first, ...lines] = text.slice(0, at < 0 ? text.length : at)
    .split("\r\n");
  const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(first)?.[1] ?? 0);
  const headers = new Map(lines.map((line) => {
    const colon = line.indexOf(":");
    return [
      line.slice(0, colon).toLowerCase(),
      line.slice(colon + 1).trim(),
    ];
  }));
  return { status, headers, body: at < 0 ? "" : text.slice(at + 4) };
}
