/**
 * Compares this server with its peers, all in the same run on this machine:
 * only the ratios mean anything. Installs nothing; a row that needs a program
 * which is not here is skipped and says which.
 *
 * See docs/benchmarks.md.
 */
import { parseArgs } from "node:util";
import { messageOf } from "../src/common/errors.ts";
import { describeMachine } from "./machine.ts";
import { PACKAGES, type Plan, type Row, type Tool } from "./row.ts";
import { backupRows } from "./rows/backup.ts";
import { bareServeRow } from "./rows/bare_serve.ts";
import { changesRows } from "./rows/changes.ts";
import { keyCountRow } from "./rows/key_count.ts";
import { kvConnectRows } from "./rows/kv_connect.ts";
import { launchRow } from "./rows/launch.ts";
import { memoryRow } from "./rows/memory.ts";
import { pitrRow } from "./rows/pitr.ts";
import { replicaRows } from "./rows/replica.ts";
import { bucketReplicaRows } from "./rows/replica_bucket.ts";
import { restRows } from "./rows/rest.ts";
import { slowDiskRows } from "./rows/slow_disk.ts";
import { snapshotRow } from "./rows/snapshot_p99.ts";
import { Skipped } from "./servers.ts";
import { machineLine, type Result, table } from "./table.ts";

const ROWS: Row[] = [
  ...kvConnectRows.slice(0, 6),
  ...slowDiskRows,
  ...kvConnectRows.slice(6),
  ...restRows,
  bareServeRow,
  memoryRow,
  launchRow,
  keyCountRow,
  ...backupRows,
  snapshotRow,
  ...changesRows,
  ...replicaRows,
  ...bucketReplicaRows,
  pitrRow,
];

const HELP = `deno task bench [--rows <id>,<id>…] [--quick] [--json]

  --rows   only these rows: ${ROWS.map((row) => row.id).join(", ")}
  --quick  rounds of 1 s and a smaller large database: to see that it works,
           not to be quoted
  --json   print the numbers of every round as JSON instead of the table
`;

type Settings = Omit<Plan, "folder">;

const FULL: Settings = {
  rounds: 3,
  seconds: 4,
  warmUpSeconds: 2,
  launches: 10,
  manyKeys: 1_000_000,
};

const QUICK: Settings = {
  rounds: 3,
  seconds: 1,
  warmUpSeconds: 1,
  launches: 5,
  manyKeys: 200_000,
};

async function main(): Promise<number> {
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      rows: { type: "string" },
      quick: { type: "boolean" },
      json: { type: "boolean" },
      help: { type: "boolean" },
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const ids = values.rows?.split(",") ?? ROWS.map((row) => row.id);
  const unknown = ids.filter((id) => !ROWS.some((row) => row.id === id));
  if (unknown.length > 0) {
    console.error(`No such row: ${unknown.join(", ")}.\n\n${HELP}`);
    return 2;
  }

  // On the project's own disk: a temporary folder may be memory.
  const cache = `${import.meta.dirname}/../.cache`;
  await Deno.mkdir(cache, { recursive: true });
  const folder = await Deno.makeTempDir({
    dir: await Deno.realPath(cache),
    prefix: "bench_",
  });
  try {
    const machine = await describeMachine(folder);
    console.error(machineLine(machine));
    const results: Result[] = [];
    for (const row of ROWS.filter((row) => ids.includes(row.id))) {
      console.error(`… ${row.title}`);
      const settings = values.quick ? QUICK : FULL;
      const result = await measure(row, { ...settings, folder });
      if (result.failed) console.error(`FAILED: ${result.failed}`);
      results.push(result);
    }
    if (values.json) {
      console.log(JSON.stringify({ machine, results }, null, 2));
    } else {
      const warning = values.quick ? " (quick: not to be quoted)" : "";
      console.log(`${machineLine(machine)}${warning}\n\n${table(results)}`);
    }
    return results.some((result) => result.failed !== undefined) ? 1 : 0;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function measure(row: Row, plan: Plan): Promise<Result> {
  const { measure: _measure, needs, ...described } = row;
  const result: Result = { ...described, ours: [], peer: [] };
  const missing = await missingTools(needs);
  if (missing.length > 0) {
    const packages = missing.map((tool) => PACKAGES[tool]).join(", ");
    return { ...result, skipped: `needs the Debian package ${packages}` };
  }
  if (needs.includes("taskset") && navigator.hardwareConcurrency < 2) {
    return { ...result, skipped: "needs two cores" };
  }
  const folder = `${plan.folder}/${row.id}`;
  await Deno.mkdir(folder);
  try {
    return { ...result, ...await row.measure({ ...plan, folder }) };
  } catch (error) {
    if (error instanceof Skipped) return { ...result, skipped: error.message };
    return { ...result, failed: messageOf(error) };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function missingTools(tools: readonly Tool[]): Promise<Tool[]> {
  const missing: Tool[] = [];
  for (const tool of tools) {
    try {
      // Whatever it answers, it is there.
      await new Deno.Command(tool, { args: ["--version"] }).output();
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      missing.push(tool);
    }
  }
  return missing;
}

Deno.exit(await main());
