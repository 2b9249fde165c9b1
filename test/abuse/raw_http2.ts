/**
 * HTTP/2 frame by frame, for what no library would send. Headers are written
 * without compression (RFC 7541, 6.2.2), and what comes back is counted by
 * its type and not understood.
 */
const PREFACE = new TextEncoder().encode("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

export const Frame = {
  DATA: 0,
  HEADERS: 1,
  PRIORITY: 2,
  RST_STREAM: 3,
  SETTINGS: 4,
  PING: 6,
  GOAWAY: 7,
  WINDOW_UPDATE: 8,
  CONTINUATION: 9,
} as const;

export const END_STREAM = 1;
export const END_HEADERS = 4;
const ACK = 1;
/** The error code of a RST_STREAM. */
export const CANCEL = 8;
const NAMES = Object.entries(Frame);

export const Setting = {
  HEADER_TABLE_SIZE: 1,
  INITIAL_WINDOW_SIZE: 4,
  MAX_FRAME_SIZE: 5,
} as const;

export type Bytes = Uint8Array<ArrayBuffer>;
export const NOTHING: Bytes = new Uint8Array(0);

export function joined(parts: readonly Uint8Array[]): Bytes {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

export function frame(
  type: number,
  flags: number,
  stream: number,
  payload: Uint8Array = NOTHING,
): Bytes {
  const out = new Uint8Array(9 + payload.length);
  const view = new DataView(out.buffer);
  view.setUint32(0, payload.length << 8);
  out[3] = type;
  out[4] = flags;
  view.setUint32(5, stream);
  out.set(payload, 9);
  return out;
}

export function uint32(value: number): Bytes {
  const out = new Uint8Array(4);
  new DataView(out.buffer).setUint32(0, value);
  return out;
}

export function settings(pairs: readonly [number, number][] = []): Bytes {
  const payload = new Uint8Array(6 * pairs.length);
  const view = new DataView(payload.buffer);
  pairs.forEach(([id, value], i) => {
    view.setUint16(6 * i, id);
    view.setUint32(6 * i + 2, value);
  });
  return frame(Frame.SETTINGS, 0, 0, payload);
}

/** A number with a prefix of 7 bits, the 8th being `flag` (RFC 7541, 5.1). */
function prefixed(value: number, flag = 0): number[] {
  if (value < 127) return [flag | value];
  const out = [flag | 127];
  let rest = value - 127;
  while (rest >= 128) {
    out.push(rest & 127 | 128);
    rest >>= 7;
  }
  return [...out, rest];
}

function text(value: string): Bytes {
  const bytes = new TextEncoder().encode(value);
  return joined([new Uint8Array(prefixed(bytes.length)), bytes]);
}

/** A block of headers. */
export function headerBlock(
  headers: Iterable<readonly [string, string]>,
): Bytes {
  const parts: Uint8Array[] = [];
  for (const [name, value] of headers) {
    parts.push(new Uint8Array(1), text(name), text(value));
  }
  return joined(parts);
}

/** Puts a header into the dynamic table, where its index is then 62. */
export function indexedHeader(name: string, value: string): Bytes {
  return joined([new Uint8Array([0x40]), text(name), text(value)]);
}

/** The newest header of the dynamic table, so many times. */
export const repeatedHeader = (count: number): Bytes =>
  new Uint8Array(count).fill(0x80 | 62);

export function requestBlock(
  method: string,
  path: string,
  headers: Record<string, string> = {},
): Bytes {
  return headerBlock([
    [":method", method],
    [":scheme", "http"],
    [":path", path],
    [":authority", "127.0.0.1"],
    ...Object.entries(headers),
  ]);
}

export interface RawSettings {
  settings?: [number, number][];
  /** False: takes nothing off the connection, so that it fills up. */
  reads?: boolean;
}

export class RawHttp2 {
  /** Frames from the server, by their types' names. */
  readonly seen: Record<string, number> = {};
  /** False once it has been closed, from whichever side. */
  isOpen = true;
  private nextStream = 1;
  private sending: Promise<unknown> = Promise.resolve();
  private readonly reading: Promise<void>;

  private constructor(
    private readonly connection: Deno.TcpConn,
    reads: boolean,
  ) {
    this.reading = reads ? this.read() : Promise.resolve();
  }

  static async connect(
    port: number,
    options: RawSettings = {},
  ): Promise<RawHttp2> {
    const connection = await Deno.connect({ hostname: "127.0.0.1", port });
    const raw = new RawHttp2(connection, options.reads ?? true);
    await raw.send(PREFACE, settings(options.settings));
    return raw;
  }

  /** The next stream of this side. */
  stream(): number {
    this.nextStream += 2;
    return this.nextStream - 2;
  }

  /** Writes frames; false where the server has closed the connection. */
  send(...frames: readonly Uint8Array[]): Promise<boolean> {
    // One after the other, so that no two are mixed.
    const sent = this.sending.then(() => this.write(joined(frames)));
    this.sending = sent;
    return sent;
  }

  private async write(bytes: Bytes): Promise<boolean> {
    try {
      for (let at = 0; this.isOpen && at < bytes.length;) {
        at += await this.connection.write(bytes.subarray(at));
      }
    } catch {
      this.isOpen = false;
    }
    return this.isOpen;
  }

  private async read(): Promise<void> {
    let buffer: Bytes = NOTHING;
    const part = new Uint8Array(65_536);
    try {
      while (true) {
        const count = await this.connection.read(part);
        if (count === null) break;
        buffer = joined([buffer, part.subarray(0, count)]);
        buffer = buffer.subarray(this.take(buffer));
      }
    } catch {
      // Closed from either side.
    }
    this.isOpen = false;
  }

  /** How many bytes of the buffer were whole frames. */
  private take(buffer: Bytes): number {
    const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
    let at = 0;
    while (buffer.length - at >= 9) {
      const length = view.getUint32(at) >>> 8;
      if (buffer.length - at < 9 + length) break;
      const [type, flags] = [buffer[at + 3], buffer[at + 4]];
      const name = NAMES.find(([, number]) => number === type)?.[0] ?? "other";
      this.seen[name] = (this.seen[name] ?? 0) + 1;
      if (type === Frame.SETTINGS && (flags & ACK) === 0) {
        void this.send(frame(Frame.SETTINGS, ACK, 0));
      }
      at += 9 + length;
    }
    return at;
  }

  async close(): Promise<void> {
    this.isOpen = false;
    try {
      this.connection.close();
    } catch {
      // The reader has met its end already.
    }
    await this.reading;
  }
}

/** What all of them have seen, and how many the server has closed. */
export function seenBy(
  connections: readonly RawHttp2[],
): Record<string, number> {
  const sum: Record<string, number> = { closed: 0 };
  for (const { seen, isOpen } of connections) {
    if (!isOpen) sum.closed++;
    for (const [name, count] of Object.entries(seen)) {
      sum[name] = (sum[name] ?? 0) + count;
    }
  }
  return sum;
}
