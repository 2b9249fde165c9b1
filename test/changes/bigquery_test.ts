import assert from "node:assert/strict";
import { TestFolder } from "../support/server.ts";
import {
  commitsOf,
  hasNode,
  isWholeHistory,
  killAndResume,
  type Line,
} from "./pipeline.ts";

interface Column {
  name: string;
  type: string;
  mode: string;
}

/** What BigQuery takes for a column, as its documents have it. */
const FITS: Record<string, (value: unknown) => boolean> = {
  STRING: (value) => typeof value === "string",
  INTEGER: (value) => Number.isSafeInteger(value),
  BOOLEAN: (value) => typeof value === "boolean",
  TIMESTAMP: (value) =>
    typeof value === "string" &&
    /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(value),
  JSON: () => true,
};

Deno.test("a change feed as load files for BigQuery: whole commits, named by their versionstamps, whatever is killed", async () => {
  if (!await hasNode()) return;
  await using folder = await TestFolder.make();
  const history = await killAndResume({
    program: "bigquery.mjs",
    env: {
      BIGQUERY_FOLDER: folder.path,
      BIGQUERY_MAX_BYTES: "20000",
      BIGQUERY_MAX_MS: "200",
    },
  });
  const names = [...Deno.readDirSync(folder.path)].map(({ name }) => name)
    .filter((name) => name.endsWith(".ndjson")).sort();
  assert.ok(names.length > 1, `${names.length} files`);
  const lines: Line[] = [];
  for (const name of names) {
    const text = await Deno.readTextFile(`${folder.path}/${name}`);
    const own = text.trim().split("\n").map((line) => JSON.parse(line) as Line);
    const commits = commitsOf(own);
    assert.equal(
      name,
      `${commits[0][0].versionstamp}-${commits.at(-1)![0].versionstamp}.ndjson`,
    );
    lines.push(...own);
  }
  // The newest name says how far it is, so nothing even comes twice.
  isWholeHistory(commitsOf(lines), history);
  assert.deepEqual(lines, history.flat());

  const schema: Column[] = JSON.parse(
    await Deno.readTextFile(
      new URL("../../examples/changes/bigquery_schema.json", import.meta.url),
    ),
  );
  const columns = new Map(schema.map((column) => [column.name, column]));
  for (const line of lines) {
    for (const [name, value] of Object.entries(line)) {
      const column = columns.get(name);
      assert.ok(column, `${name} is no column`);
      assert.ok(FITS[column.type](value), `${name}: ${value}`);
    }
    for (const { name, mode } of schema) {
      if (mode === "REQUIRED") assert.ok(name in line, `${name} is missing`);
    }
  }
});
