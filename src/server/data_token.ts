/**
 * Tokens for the data path. They are not the access token: each is good for
 * some hours, and its signing key is derived from the access token and the
 * database id, so that it outlives a restart of the server and is understood
 * by every replica of the same database.
 *
 * Form: `dkv1.<expiry, seconds since 1970, base 36>.<HMAC-SHA-256, base64url>`.
 */
import { type Bytes, utf8 } from "../common/bytes.ts";
import type { Clock } from "../common/clock.ts";

const PREFIX = "dkv1";
/**
 * Clients exchange anew before it ends; less than 5 minutes would make
 * `@deno/kv` exchange at every call.
 */
const VALIDITY_MS = 12 * 3_600_000;
/** Tokens that were found good; verifying one takes 50 µs, looking it up 0.1. */
const MAX_REMEMBERED = 1024;

const HMAC = { name: "HMAC", hash: "SHA-256" };

export class DataTokens {
  /**
   * By the whole authorization header. A lookup by hash tells an attacker
   * nothing about how far a guess was right.
   */
  private readonly good = new Map<string, number>();

  private constructor(
    private readonly key: CryptoKey,
    private readonly clock: Clock,
  ) {}

  static async create(
    accessToken: string,
    databaseId: string,
    clock: Clock,
  ): Promise<DataTokens> {
    const root = await importKey(utf8(accessToken));
    const derived = await crypto.subtle.sign(
      HMAC,
      root,
      utf8(`denokv data token 1\n${databaseId}`),
    );
    return new DataTokens(await importKey(new Uint8Array(derived)), clock);
  }

  async issue(): Promise<{ token: string; expiresAtMs: number }> {
    const seconds = Math.floor((this.clock.nowMs() + VALIDITY_MS) / 1000);
    const text = `${PREFIX}.${seconds.toString(36)}`;
    const signature = await crypto.subtle.sign(HMAC, this.key, utf8(text));
    const encoded = new Uint8Array(signature).toBase64({
      alphabet: "base64url",
      omitPadding: true,
    });
    return { token: `${text}.${encoded}`, expiresAtMs: seconds * 1000 };
  }

  /**
   * Whether an authorization header carries a good token: at once for one
   * that has been seen, else as a promise.
   */
  check(authorization: string | null): boolean | Promise<boolean> {
    if (authorization === null) return false;
    const expiresAtMs = this.good.get(authorization);
    if (expiresAtMs === undefined) return this.verify(authorization);
    return expiresAtMs > this.clock.nowMs();
  }

  private async verify(authorization: string): Promise<boolean> {
    const match = /^Bearer (dkv1\.([0-9a-z]{1,10}))\.([\w-]{43})$/i.exec(
      authorization,
    );
    if (!match) return false;
    const [, text, expiry, signature] = match;
    const expiresAtMs = parseInt(expiry, 36) * 1000;
    const isGood = await crypto.subtle.verify(
      HMAC,
      this.key,
      decodeBase64Url(signature),
      utf8(text),
    );
    if (!isGood || expiresAtMs <= this.clock.nowMs()) return false;
    if (this.good.size >= MAX_REMEMBERED) {
      // The oldest goes; it can be verified again.
      for (const oldest of this.good.keys()) {
        this.good.delete(oldest);
        break;
      }
    }
    this.good.set(authorization, expiresAtMs);
    return true;
  }
}

function importKey(raw: Bytes): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", raw, HMAC, false, ["sign", "verify"]);
}

/** Bytes of no signature at all where the text is no base64. */
function decodeBase64Url(text: string): Bytes {
  try {
    return Uint8Array.fromBase64(text, { alphabet: "base64url" });
  } catch {
    return new Uint8Array(32);
  }
}
