/**
 * AWS's signature, version 4, in the `Authorization` header. Signing here takes
 * 0.05 ms of processor time (docs/decisions/object-stores.md says why the SDK
 * does not do it for every request).
 */
import { createHash, createHmac } from "node:crypto";
import type { Bytes } from "../common/bytes.ts";

/** Below this a body is hashed at once, above it outside of this thread. */
const MAX_HASHED_HERE_BYTES = 64 * 1024;

export interface Credentials {
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken?: string;
}

export interface UnsignedRequest {
  method: string;
  /** As it is sent, percent-encoded; there is no query. */
  path: string;
  /** With `host`; the names in lower case. All of them are signed. */
  headers: Record<string, string>;
  /** In hexadecimal: SHA-256 of the body. */
  bodyHash: string;
  nowMs: number;
}

/** Where a signature holds. */
export interface Scope {
  region: string;
  service: string;
}

/** Signs for one scope. A signing key is derived once a day. */
export class Signer {
  private known: { of: string; key: Uint8Array } | undefined;

  constructor(private readonly scope: Scope) {}

  /** The request's headers with what makes it a signed one. */
  sign(
    { method, path, headers, bodyHash, nowMs }: UnsignedRequest,
    credentials: Credentials,
  ): Record<string, string> {
    const time = new Date(nowMs).toISOString().replace(/[-:]|\.\d+/g, "");
    const { sessionToken } = credentials;
    const signed: Record<string, string> = {
      ...headers,
      "x-amz-content-sha256": bodyHash,
      "x-amz-date": time,
      ...(sessionToken && { "x-amz-security-token": sessionToken }),
    };
    const names = Object.keys(signed).sort();
    const lines = names.map((name) =>
      `${name}:${signed[name].trim().replace(/ +/g, " ")}\n`
    );
    const list = names.join(";");
    const canonical = `${method}\n${path}\n\n${
      lines.join("")
    }\n${list}\n${bodyHash}`;
    const { region, service } = this.scope;
    const day = time.slice(0, 8);
    const scope = `${day}/${region}/${service}/aws4_request`;
    const text = `AWS4-HMAC-SHA256\n${time}\n${scope}\n${
      createHash("sha256").update(canonical).digest("hex")
    }`;
    const signature = createHmac("sha256", this.keyOf(credentials, day))
      .update(text).digest("hex");
    signed.authorization =
      `AWS4-HMAC-SHA256 Credential=${credentials.accessKeyId}/${scope}, SignedHeaders=${list}, Signature=${signature}`;
    return signed;
  }

  private keyOf({ secretAccessKey }: Credentials, day: string): Uint8Array {
    const of = `${day} ${secretAccessKey}`;
    if (this.known?.of === of) return this.known.key;
    const { region, service } = this.scope;
    let key: Uint8Array | string = `AWS4${secretAccessKey}`;
    for (const part of [day, region, service, "aws4_request"]) {
      key = createHmac("sha256", key).update(part).digest();
    }
    this.known = { of, key: key as Uint8Array };
    return this.known.key;
  }
}

const NOTHING = createHash("sha256").digest("hex");

/** SHA-256 in hexadecimal. */
export async function hashOf(body: Uint8Array | undefined): Promise<string> {
  if (body === undefined) return NOTHING;
  if (body.length <= MAX_HASHED_HERE_BYTES) {
    return createHash("sha256").update(body).digest("hex");
  }
  const hash = await crypto.subtle.digest("SHA-256", body as Bytes);
  return new Uint8Array(hash).toHex();
}
