/** Where requests go to, by the SDK's own rules. */
import * as aws from "@aws-sdk/client-s3";
import assert from "node:assert/strict";
import { findPlace } from "./s3_http.ts";

const credentials = { accessKeyId: "a/b", secretAccessKey: "c" };

async function placeOf(config: aws.S3ClientConfig, bucket: string) {
  const client = new aws.S3Client({ credentials, ...config });
  const { origin, host, path, scope } = await findPlace(client, bucket);
  client.destroy();
  assert.equal(new URL(origin).host, host);
  assert.equal(scope.service, "s3");
  return `${origin}${path} ${scope.region}`;
}

Deno.test("Amazon's buckets are found by their region", async () => {
  const region = "eu-central-1";
  assert.equal(
    await placeOf({ region }, "app-backup"),
    "https://app-backup.s3.eu-central-1.amazonaws.com/ eu-central-1",
  );
  assert.equal(
    await placeOf({ region, forcePathStyle: true }, "app-backup"),
    "https://s3.eu-central-1.amazonaws.com/app-backup/ eu-central-1",
  );
  // No certificate has a name with dots in it.
  assert.equal(
    await placeOf({ region }, "backup.example.com"),
    "https://s3.eu-central-1.amazonaws.com/backup.example.com/ eu-central-1",
  );
  assert.equal(
    await placeOf({ region: "cn-north-1" }, "app-backup"),
    "https://app-backup.s3.cn-north-1.amazonaws.com.cn/ cn-north-1",
  );
});

Deno.test("an endpoint has the buckets in its path or its name", async () => {
  const region = "us-east-1";
  const forcePathStyle = true;
  assert.equal(
    await placeOf(
      { region, endpoint: "http://localhost:9000", forcePathStyle },
      "app",
    ),
    "http://localhost:9000/app/ us-east-1",
  );
  assert.equal(
    await placeOf(
      { region, endpoint: "https://store.example/s3", forcePathStyle },
      "app",
    ),
    "https://store.example/s3/app/ us-east-1",
  );
  assert.equal(
    await placeOf({ region, endpoint: "https://store.example" }, "app"),
    "https://app.store.example/ us-east-1",
  );
});

Deno.test("what the SDK cannot do without is missed as ever", async () => {
  const client = new aws.S3Client({
    region: "us-east-1",
    credentials: () => Promise.reject(new Error("none here")),
  });
  await assert.rejects(findPlace(client, "app"), /none here/);
});
