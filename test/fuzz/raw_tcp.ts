/** Bytes on a bare connection that no HTTP library would send. */
import type { Random } from "../../src/common/random.ts";
import { ACCESS_TOKEN } from "../support/server.ts";

const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const AUTHORIZATION = `authorization: Bearer ${ACCESS_TOKEN}\r\n`;

const text = (value: string) => new TextEncoder().encode(value);

/** A frame of HTTP/2. */
function frame(
  type: number,
  flags: number,
  stream: number,
  payload: Uint8Array,
): Uint8Array {
  const out = new Uint8Array(9 + payload.length);
  const view = new DataView(out.buffer);
  view.setUint32(0, payload.length << 8);
  out[3] = type;
  out[4] = flags;
  view.setUint32(5, stream);
  out.set(payload, 9);
  return out;
}

function join(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(parts.flatMap((part) => [...part]));
}

/** None of these is a whole, valid write. */
export function rawBytes(random: Random): Uint8Array {
  const one = <T>(of: readonly T[]) => of[random.below(of.length)];
  const requests = [
    "GET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/9.9\r\nhost: x\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "GET\r\n\r\n",
    "\r\n\r\n\r\n",
    "GET /fuzz HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
    "GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET http://[::1 HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET http:// HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: \x01\r\n\r\n",
    "GET /-/health HTTP/1.1\r\nhost:\r\n\r\n",
    "GET /fuzz HTTP/1.1\r\nhost: ]]]][[\r\n\r\n",
    "GET /fuzz HTTP/1.1\r\nhost: a b/c?d#e\r\n\r\n",
    "CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
    "POST * HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    `POST / HTTP/1.1\r\nhost: x\r\n${AUTHORIZATION}content-length: 99\r\n\r\n{}`,
    `POST / HTTP/1.1\r\nhost: x\r\n${AUTHORIZATION}content-length: -1\r\n\r\n`,
    `POST / HTTP/1.1\r\nhost: x\r\n${AUTHORIZATION}content-length: 1\r\ncontent-length: 2\r\n\r\n{}`,
    `POST / HTTP/1.1\r\nhost: x\r\n${AUTHORIZATION}content-length: 99999999999999999999\r\n\r\n`,
    `POST / HTTP/1.1\r\nhost: x\r\n${AUTHORIZATION}transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n`,
    `POST / HTTP/1.1\r\nhost: x\r\n${AUTHORIZATION}transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n{}`,
    `POST / HTTP/1.1\r\nhost: x\r\n${AUTHORIZATION}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n`,
    `POST / HTTP/1.1\r\nhost: x\r\n${AUTHORIZATION}transfer-encoding: gzip, x\r\n\r\n`,
    `POST / HTTP/1.1\r\nhost: x\r\n${AUTHORIZATION}expect: 100-continue\r\ncontent-length: 9\r\n\r\n`,
    `POST / HTTP/1.1\r\nhost: x\r\n${AUTHORIZATION}upgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\n{}`,
    `GET /fuzz HTTP/1.1\r\nhost: x\r\n${"a: b\r\n".repeat(500)}\r\n`,
    `GET /fuzz HTTP/1.1\r\nhost: x\r\na: ${"b".repeat(100_000)}\r\n\r\n`,
    `GET /${"x".repeat(70_000)} HTTP/1.1\r\nhost: x\r\n\r\n`,
    "GET /fuzz HTTP/1.1\r\nhost: x\r\n folded\r\n\r\n",
    "GET /-/health HTTP/1.1\r\nhost: x\r\n\r\n".repeat(30),
  ];
  switch (random.below(5)) {
    case 0:
      return random.bytes(random.below(400));
    case 1:
    case 2:
      return text(one(requests));
    case 3: {
      const whole = text(one(requests));
      const cut = whole.slice(0, random.below(whole.length + 1));
      if (cut.length > 0) cut[random.below(cut.length)] = random.below(256);
      return cut;
    }
    default: {
      const frames = Array.from({ length: 1 + random.below(8) }, () =>
        frame(
          random.below(12),
          random.below(256),
          one([0, 1, 1, 2, 3, 2 ** 31 - 1, 2 ** 32 - 1]),
          random.bytes(random.below(64)),
        ));
      const settings = frame(4, 0, 0, new Uint8Array(0));
      return join(text(PREFACE), settings, ...frames);
    }
  }
}

const LONGEST_MS = 2000;
/** After this long without an answer the next connection is tried. */
const SILENCE_MS = 30;

/** Sends the bytes, and gives back what the server says before it is quiet. */
export async function sendRaw(
  port: number,
  bytes: Uint8Array,
): Promise<Uint8Array> {
  const connection = await Deno.connect({ hostname: "127.0.0.1", port });
  const parts: Uint8Array[] = [];
  const reading = (async () => {
    const buffer = new Uint8Array(65_536);
    try {
      while (true) {
        const count = await connection.read(buffer);
        if (count === null) break;
        parts.push(buffer.slice(0, count));
      }
    } catch {
      // Reset by the server, or closed below: both are fine.
    }
  })();
  const writing = (async () => {
    try {
      for (let at = 0; at < bytes.length;) {
        at += await connection.write(bytes.subarray(at));
      }
    } catch {
      // The server has heard enough.
    }
  })();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const after = (ms: number) =>
    new Promise<void>((resolve) => timer = setTimeout(resolve, ms));
  await Promise.race([writing, after(LONGEST_MS)]);
  clearTimeout(timer);
  await Promise.race([reading, after(SILENCE_MS)]);
  clearTimeout(timer);
  connection.close();
  await Promise.all([reading, writing]);
  return join(...parts);
}
