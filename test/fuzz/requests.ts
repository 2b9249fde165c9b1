/** Requests that are wrong in every way that is still a request. */
import type { Random } from "../../src/common/random.ts";
import { encodeKey } from "../../src/protocol/key.ts";
import { MutationType } from "../../src/protocol/messages.ts";
import { encodeV8Number } from "../../src/protocol/v8_number.ts";
import {
  atomic,
  check,
  del,
  everything,
  key,
  le64,
  mutation,
  point,
  set,
  sum,
  u64,
} from "../../src/store/contract/support.ts";
import type { Exchange } from "../support/kv_client.ts";
import {
  encodeRead,
  encodeWatch,
  encodeWrite,
  message,
} from "../support/kv_messages.ts";
import { ACCESS_TOKEN, REST_SECRET } from "../support/server.ts";

export interface FuzzRequest {
  method: string;
  path: string;
  headers: Record<string, string>;
  body: Uint8Array<ArrayBuffer> | undefined;
}

const DATA_PATHS = ["/-/kv/v2", "/v2"];
const METHODS = [
  "GET",
  "HEAD",
  "POST",
  "PUT",
  "DELETE",
  "PATCH",
  "OPTIONS",
  "PROPFIND",
];
const SERVICE_PATHS = [
  "/-/health",
  "/-/ready",
  "/-/metrics",
  "/-/openapi.json",
  "/-/key",
  "/-/",
  "/-",
  "/-/nothing",
  "/-/kv",
  "/-/kv/v2",
  "/v2",
  "/-/kv/v3/watch",
  "/",
  "*",
];
const SEGMENTS = [
  "fuzz",
  "",
  ".",
  "..",
  "%2e%2e",
  "%00",
  "%ff",
  "%C3%A9",
  "%E0%80%AF",
  "%",
  "%4",
  "%zz",
  "%2F",
  "a%3Fb",
  "-",
  "%2D",
  "v2",
  "+",
  "~!$&'()*,;=:@",
  "x".repeat(3000),
];
const TYPES = [
  "",
  "text/plain",
  "text/plain; charset=utf-16",
  "application/json",
  "application/vnd.denokv.typed+json",
  "application/x-www-form-urlencoded",
  "multipart/form-data; boundary=x",
  "application/octet-stream",
  "application/x-protobuf",
  ";;;",
  "x".repeat(500),
];

export class RequestMaker {
  constructor(
    private readonly random: Random,
    /** One of each protocol version. */
    private readonly exchanges: readonly Exchange[],
  ) {}

  private below(bound: number): number {
    return this.random.below(bound);
  }

  private chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  private one<T>(of: readonly T[]): T {
    return of[this.below(of.length)];
  }

  make(): FuzzRequest {
    const kind = this.below(100);
    if (kind < 50) return this.data();
    if (kind < 60) return this.metadata();
    if (kind < 85) return this.rest();
    return this.service();
  }

  // ------------------------------------------------------------ KV Connect

  private data(): FuzzRequest {
    const exchange = this.one(this.exchanges);
    const call = this.one(["snapshot_read", "atomic_write", "watch"]);
    const headers: Record<string, string> = {
      authorization: `Bearer ${exchange.token}`,
      "content-type": "application/x-protobuf",
    };
    if (exchange.version === 1) {
      headers["x-transaction-domain-id"] = exchange.databaseId;
    } else {
      headers["x-denokv-version"] = String(exchange.version);
      headers["x-denokv-database-id"] = exchange.databaseId;
    }
    let body = this.validBody(call);
    if (this.chance(85)) body = this.damaged(body);
    else if (this.chance(30)) this.damageHeaders(headers);
    // A body meant for another call is valid protobuf all the same.
    const sentTo = this.chance(90) ? call : this.one(["", "x", "watch/"]);
    const path = `${this.one(DATA_PATHS)}/${sentTo}`;
    const method = this.chance(97) ? "POST" : this.one(METHODS);
    return { method, path, headers, body: bodyFor(method, body) };
  }

  private validBody(call: string): Uint8Array<ArrayBuffer> {
    if (this.chance(10)) return this.hostileBody();
    if (call === "snapshot_read") {
      const limit = this.one([1, 5, 500]);
      return encodeRead(
        this.one([
          [point("keep")],
          [everything({ limit })],
          [everything({ limit, reverse: true }), point("fuzz")],
        ]),
      );
    }
    if (call === "watch") return encodeWatch([key("keep"), key("fuzz")]);
    const message = {
      payload: encodeV8Number(1),
      deadlineMs: Date.now(),
      keysIfUndelivered: [key("fuzz")],
      backoffScheduleMs: [1, 1000],
    };
    return encodeWrite(this.one([
      atomic([set("fuzz", "value")]),
      atomic([set("fuzz", "v".repeat(this.below(2000)), Date.now() + 5)]),
      atomic([del("fuzz"), u64(MutationType.MIN, "fuzz", 7n)]),
      atomic([sum("fuzz", 1.5), u64(MutationType.SUM, "fuzz", 1n)]),
      atomic([set("fuzz", "value")], [check("fuzz", 12345)]),
      atomic([], [check("fuzz", null)]),
      atomic([set("fuzz", "never")], [], [message, {
        ...message,
        payload: le64(9n),
      }]),
      atomic([
        mutation(MutationType.SET_SUFFIX_VERSIONSTAMPED_KEY, "fuzz"),
        sum("fuzz", 5n, { sumMin: encodeV8Number(0n), sumClamp: true }),
      ]),
    ]));
  }

  /** Well formed, but nothing a client would send. */
  private hostileBody(): Uint8Array<ArrayBuffer> {
    const deep = () => {
      let inner = message([1, 1]);
      for (let i = 0; i < 200; i++) inner = message([1, inner]);
      return inner;
    };
    const reserved = new Uint8Array([0xff, this.below(256)]);
    const bigNumber = 2n ** BigInt(this.below(65)) - 1n;
    return this.one([
      deep(),
      message([2, message([1, encodeKey(["fuzz"])], [3, bigNumber])]),
      message([2, message([1, encodeKey(["fuzz"])], [3, 2], [4, bigNumber])]),
      message([
        2,
        message([1, reserved], [2, message([1, reserved], [2, 3])], [3, 1]),
      ]),
      message([1, message([1, reserved], [2, reserved], [3, bigNumber])]),
      message([3, message([1, reserved], [2, bigNumber], [4, bigNumber])]),
      message(
        ...Array.from(
          { length: 1200 },
          () => [1, message()] as [number, Uint8Array],
        ),
      ),
      message(
        ...Array.from(
          { length: 1200 },
          () => [3, message([1, reserved])] as [number, Uint8Array],
        ),
      ),
      new Uint8Array(this.below(70_000)),
      new Uint8Array(0),
    ]);
  }

  private damageHeaders(headers: Record<string, string>): void {
    const name = this.one(Object.keys(headers));
    if (this.chance(30)) delete headers[name];
    else {
      headers[name] = this.one([
        "",
        "0",
        "-1",
        "999999999999",
        "Bearer",
        "Bearer  ",
        `Bearer dkv1.zzzzzzz.${"A".repeat(43)}`,
        `Bearer dkv1..${"A".repeat(43)}`,
        `bearer ${ACCESS_TOKEN}`,
        `Basic ${btoa("a:b")}`,
        headers[name] + "x",
        headers[name].slice(0, -1),
        "x".repeat(5000),
      ]);
    }
  }

  private metadata(): FuzzRequest {
    const text = this.one([
      '{"supportedVersions":[1,2,3]}',
      '{"supportedVersions":[3,2,1,"3",null,{}]}',
      '{"supportedVersions":[]}',
      '{"supportedVersions":{"length":1}}',
      '{"supportedVersions":"123"}',
      '{"supportedVersions":[1e400]}',
      '{"__proto__":{"supportedVersions":[3]}}',
      "{",
      "null",
      "[]",
      "1",
      '"',
      "[".repeat(3000),
      " ".repeat(5000),
      "",
    ]);
    let body = new TextEncoder().encode(text);
    if (this.chance(40)) body = this.damaged(body);
    const headers: Record<string, string> = {
      authorization: `Bearer ${ACCESS_TOKEN}`,
      "content-type": "application/json",
    };
    if (this.chance(40)) this.damageHeaders(headers);
    if (this.chance(10)) {
      headers["x-forwarded-proto"] = this.one(["https", "x"]);
    }
    const path = this.chance(90) ? "/" : this.one(["/?", "/?a=b", "//"]);
    return { method: "POST", path, headers, body };
  }

  // ------------------------------------------------------------------ REST

  private rest(): FuzzRequest {
    const count = 1 + this.below(4);
    let path = "/" +
      Array.from({ length: count }, () => this.one(SEGMENTS)).join("/");
    if (this.chance(10)) path += this.one(["?", "?a=b", "?%", "?k=[]"]);
    const method = this.one(METHODS);
    const headers: Record<string, string> = {};
    if (this.chance(60)) {
      headers.authorization = this.one([
        REST_SECRET,
        `Bearer ${REST_SECRET}`,
        `Bearer ${ACCESS_TOKEN}`,
        "wrong",
        "",
      ]);
    }
    const type = this.one(TYPES);
    if (type !== "") headers["content-type"] = type;
    if (this.chance(20)) {
      headers[
        this.one([
          "if-match",
          "if-none-match",
          "content-encoding",
          "range",
          "content-range",
          "accept",
          "origin",
          "cookie",
        ])
      ] = this.one(["*", '"x"', "gzip", "bytes=0-", "", "W/", ",,,"]);
    }
    const text = this.one([
      "text",
      '{"a":[1,2,{"b":null}]}',
      '{"$type":"bigint","value":"12"}',
      '{"$date":"nonsense"}',
      "[".repeat(5000),
      "1e999",
      "\ufeff",
      "",
      "x".repeat(this.below(70_000)),
    ]);
    let body = new TextEncoder().encode(text);
    if (this.chance(30)) body = this.damaged(body);
    return { method, path, headers, body: bodyFor(method, body) };
  }

  private service(): FuzzRequest {
    const method = this.one(METHODS);
    let path = this.one(SERVICE_PATHS);
    if (this.chance(20)) path += this.one(["/", "?x=1", "/..", "%00"]);
    // Only OPTIONS may be asked of a server as a whole.
    if (path.startsWith("*")) {
      return { method: "OPTIONS", path: "*", headers: {}, body: undefined };
    }
    const headers: Record<string, string> = this.chance(30)
      ? { authorization: `Bearer ${ACCESS_TOKEN}` }
      : {};
    const body = this.random.bytes(this.below(300));
    return { method, path, headers, body: bodyFor(method, body) };
  }

  // --------------------------------------------------------------- damages

  private damaged(
    bytes: Uint8Array<ArrayBuffer>,
  ): Uint8Array<ArrayBuffer> {
    let out = bytes.slice();
    for (let i = 1 + this.below(4); i > 0; i--) {
      const at = this.below(out.length + 1);
      switch (this.below(6)) {
        case 0:
          if (out.length > 0) out[at % out.length] = this.below(256);
          break;
        case 1:
          if (out.length > 0) out[at % out.length] ^= 1 << this.below(8);
          break;
        case 2:
          out = out.slice(0, at);
          break;
        case 3:
          out = joined(
            out.slice(0, at),
            this.random.bytes(this.below(20)),
            out.slice(at),
          );
          break;
        case 4:
          out = joined(out, out.slice(at));
          break;
        default:
          out = joined(out.slice(0, at), out.slice(at + this.below(8)));
      }
    }
    return out;
  }
}

function joined(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

function bodyFor(
  method: string,
  body: Uint8Array<ArrayBuffer>,
): Uint8Array<ArrayBuffer> | undefined {
  return method === "GET" || method === "HEAD" || method === "OPTIONS"
    ? undefined
    : body;
}
