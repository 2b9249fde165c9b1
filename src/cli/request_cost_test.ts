import assert from "node:assert/strict";
import { requestRate, requestText } from "./request_cost.ts";

const HOUR = {
  put: 3575,
  list: 10,
  get: 20,
  head: 6255,
  delete: 5,
  forMs: 3_600_000,
};

Deno.test("what an hour of requests comes to in a month", () => {
  // (3585 × 0.005 + 6275 × 0.0004) / 1000 × 730
  const rate = { perHour: 9865, dollarsPerMonth: 14.92 };
  assert.deepEqual(requestRate(HOUR), rate);
  const twoHours = Object.fromEntries(
    Object.entries(HOUR).map(([name, count]) => [name, 2 * count]),
  ) as typeof HOUR;
  assert.deepEqual(requestRate(twoHours), rate);
  assert.equal(
    requestText(HOUR, "s3://bucket/app"),
    "about 9865 an hour, about 14.92 $ a month on S3 Standard, without storage and transfer",
  );
  assert.equal(requestText(HOUR, "file:///backup"), "about 9865 an hour");
});

Deno.test("a start tells nothing of a month", () => {
  const requests = {
    put: 9,
    list: 2,
    get: 4,
    head: 1,
    delete: 1,
    forMs: 30_400,
  };
  assert.equal(requestRate(requests), undefined);
  assert.equal(
    requestText(requests, "s3://bucket/app"),
    "17 in the 30 s since its start",
  );
});
