/**
 * A change feed as files that BigQuery loads (docs/changes.md):
 *
 *     denokv changes --follow --from "$(node bigquery.mjs position)" | node bigquery.mjs
 *     bq load --source_format=NEWLINE_DELIMITED_JSON dataset.changes \
 *       load/<first>-<last>.ndjson bigquery_schema.json
 *
 * A file holds whole commits and is named by the versionstamps of its first and
 * its last one. It has its name when it is whole and on the disk, so the newest
 * name says how far it is: move files away once they are loaded, but the newest.
 */
import { mkdir, open, readdir, rename } from "node:fs/promises";
import process from "node:process";
import { commits } from "./commits.mjs";

const folder = process.env.BIGQUERY_FOLDER ?? "load";
/** A file ends at the first commit past either. */
const MAX_BYTES = Number(process.env.BIGQUERY_MAX_BYTES ?? 64 * 1024 * 1024);
const MAX_MS = Number(process.env.BIGQUERY_MAX_MS ?? 60_000);

await mkdir(folder, { recursive: true });

/** The last versionstamp of the newest file; `oldest` where there is none. */
async function position() {
  const names = (await readdir(folder))
    .map((name) => /^[0-9a-f]{20}-([0-9a-f]{20})\.ndjson$/.exec(name)?.[1])
    .filter(Boolean);
  return names.sort().at(-1) ?? "oldest";
}

/** The file that is being written. */
class LoadFile {
  static async begin(versionstamp) {
    const file = new LoadFile();
    file.first = versionstamp;
    file.path = `${folder}/next.part`;
    file.handle = await open(file.path, "w");
    file.bytes = 0;
    file.startedMs = Date.now();
    return file;
  }

  async append(commit) {
    const text = commit.lines.map((line) => `${JSON.stringify(line)}\n`)
      .join("");
    await this.handle.appendFile(text);
    this.bytes += text.length;
    this.last = commit.versionstamp;
  }

  get isFull() {
    return this.bytes >= MAX_BYTES || Date.now() - this.startedMs >= MAX_MS;
  }

  async end() {
    await this.handle.sync();
    await this.handle.close();
    await rename(this.path, `${folder}/${this.first}-${this.last}.ndjson`);
  }
}

async function deliver() {
  let file;
  // One thing at a time: commits, and the end of a file whose time is over.
  let work = Promise.resolve();
  const inTurn = (step) => work = work.then(step);
  const endIfFull = async () => {
    if (!file?.isFull) return;
    await file.end();
    file = undefined;
  };
  const timer = setInterval(() => inTurn(endIfFull), MAX_MS);
  for await (const list of commits()) {
    await inTurn(async () => {
      for (const commit of list) {
        file ??= await LoadFile.begin(commit.versionstamp);
        await file.append(commit);
        await endIfFull();
      }
    });
  }
  clearInterval(timer);
  await inTurn(() => file?.end());
}

if (process.argv[2] === "position") console.log(await position());
else await deliver();
