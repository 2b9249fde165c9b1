/** The examples of AWS's own description of the signature. */
import assert from "node:assert/strict";
import { utf8 } from "../common/bytes.ts";
import { hashOf, Signer } from "./s3_signature.ts";

const CREDENTIALS = {
  accessKeyId: "AKIAIOSFODNN7EXAMPLE",
  secretAccessKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
};
const NOW_MS = Date.UTC(2013, 4, 24);
const HOST = "examplebucket.s3.amazonaws.com";
const SCOPE = { region: "us-east-1", service: "s3" };

Deno.test("a part of an object is asked for as AWS's example has it", async () => {
  const signed = new Signer(SCOPE).sign({
    method: "GET",
    path: "/test.txt",
    headers: { host: HOST, range: "bytes=0-9" },
    bodyHash: await hashOf(undefined),
    nowMs: NOW_MS,
  }, CREDENTIALS);
  assert.equal(
    signed.authorization,
    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
  );
});

Deno.test("an object is put as AWS's example has it", async () => {
  const signed = new Signer(SCOPE).sign({
    method: "PUT",
    path: "/test%24file.text",
    headers: {
      host: HOST,
      date: "Fri, 24 May 2013 00:00:00 GMT",
      "x-amz-storage-class": "REDUCED_REDUNDANCY",
    },
    bodyHash: await hashOf(utf8("Welcome to Amazon S3.")),
    nowMs: NOW_MS,
  }, CREDENTIALS);
  assert.match(
    signed.authorization,
    /Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd$/,
  );
});

Deno.test("a session's token is signed, and keys change with day and secret", () => {
  const signer = new Signer(SCOPE);
  const signature = (secret: string, nowMs: number, sessionToken?: string) => {
    const { authorization, ...headers } = signer.sign({
      method: "HEAD",
      path: "/a",
      headers: { host: HOST },
      bodyHash: "",
      nowMs,
    }, { accessKeyId: "a", secretAccessKey: secret, sessionToken });
    assert.equal(headers["x-amz-security-token"], sessionToken);
    if (sessionToken) {
      assert.match(authorization, /;x-amz-security-token, /);
    }
    return authorization;
  };
  const nextDayMs = NOW_MS + 86_400_000;
  const all = [
    signature("s", NOW_MS),
    signature("s", nextDayMs),
    signature("t", nextDayMs),
    signature("t", nextDayMs, "token"),
  ];
  assert.equal(new Set(all).size, all.length);
  assert.equal(signature("s", NOW_MS), all[0]);
});

Deno.test("a large body is hashed as a small one is", async () => {
  const body = new Uint8Array(100_000);
  const whole = await crypto.subtle.digest("SHA-256", body);
  assert.equal(await hashOf(body), new Uint8Array(whole).toHex());
});
