import assert from "node:assert/strict";
import { startClickHouse } from "../support/clickhouse.ts";
import { hasNode, killAndResume } from "./pipeline.ts";

Deno.test("a change feed in ClickHouse: every row once and whole, whatever is killed", async () => {
  if (!await hasNode()) return;
  const clickhouse = await startClickHouse();
  if (clickhouse === undefined) return;
  try {
    const history = await killAndResume({
      program: "clickhouse.mjs",
      env: { CLICKHOUSE_URL: clickhouse.url },
    });
    const text = await clickhouse.query(
      "SELECT versionstamp, `index`, type, key, value, encoding, toUnixTimestamp64Milli(expireAt) AS expireMs, toUnixTimestamp64Milli(committedAt) AS committedMs FROM kv_changes FINAL ORDER BY versionstamp, `index` FORMAT JSONEachRow",
    );
    const rows = text.trim().split("\n").map((line) => JSON.parse(line));
    assert.deepEqual(
      rows.map((row) => ({
        ...row,
        expireMs: row.expireMs === null ? null : Number(row.expireMs),
        committedMs: Number(row.committedMs),
      })),
      history.flat().map((line) => ({
        versionstamp: line.versionstamp,
        index: line.index,
        type: line.type,
        key: JSON.stringify(line.key),
        value: line.type === "set" ? JSON.stringify(line.value) : "",
        encoding: line.encoding ?? "",
        expireMs: line.expireAt === undefined
          ? null
          : Date.parse(line.expireAt),
        committedMs: Date.parse(line.committedAt),
      })),
    );
  } finally {
    await clickhouse.stop();
  }
});
