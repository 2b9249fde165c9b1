/**
 * A change feed into a table of ClickHouse, over its HTTP interface
 * (docs/changes.md):
 *
 *     denokv changes --follow --from "$(node clickhouse.mjs position)" | node clickhouse.mjs
 *
 * An INSERT holds whole commits and is one block, which the table takes whole
 * or not at all, so the newest row says how far it is. Rows that come twice
 * have the same sorting key and become one.
 */
import process from "node:process";
import { batches, commits } from "./commits.mjs";

const url = process.env.CLICKHOUSE_URL ?? "http://localhost:8123";
const table = process.env.CLICKHOUSE_TABLE ?? "kv_changes";
/** Far below max_insert_block_size, so that an INSERT is one block. */
const MAX_LINES = 50_000;

const TABLE = `
CREATE TABLE IF NOT EXISTS ${table} (
  versionstamp String,
  \`index\` UInt32,
  type LowCardinality(String),
  key String,
  value String,
  encoding LowCardinality(String),
  expireAt Nullable(DateTime64(3, 'UTC')),
  committedAt DateTime64(3, 'UTC')
) ENGINE = ReplacingMergeTree ORDER BY (versionstamp, \`index\`)`;

async function ask(query, body = "") {
  const settings = { query, date_time_input_format: "best_effort" };
  const answer = await fetch(`${url}/?${new URLSearchParams(settings)}`, {
    method: "POST",
    headers: {
      "x-clickhouse-user": process.env.CLICKHOUSE_USER ?? "default",
      "x-clickhouse-key": process.env.CLICKHOUSE_PASSWORD ?? "",
    },
    body,
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`ClickHouse: ${answer.status}: ${text}`);
  return text.trim();
}

/** A row: the key and the value as the JSON that they are. */
function row(line) {
  return JSON.stringify({
    versionstamp: line.versionstamp,
    index: line.index,
    type: line.type,
    key: JSON.stringify(line.key),
    value: line.type === "set" ? JSON.stringify(line.value) : "",
    encoding: line.encoding ?? "",
    expireAt: line.expireAt ?? null,
    committedAt: line.committedAt,
  });
}

await ask(TABLE);
if (process.argv[2] === "position") {
  const newest = await ask(`SELECT max(versionstamp) FROM ${table}`);
  console.log(newest === "" ? "oldest" : newest);
} else {
  for await (const list of commits()) {
    for (const batch of batches(list, MAX_LINES)) {
      const rows = batch.flatMap(({ lines }) => lines.map(row));
      await ask(`INSERT INTO ${table} FORMAT JSONEachRow`, rows.join("\n"));
    }
  }
}
