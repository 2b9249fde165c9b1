import assert from "node:assert/strict";
import { systemClock } from "../common/clock.ts";
import { withDeadline } from "../common/deadline.ts";
import { StartupError, UnavailableError } from "../common/errors.ts";
import { createLogger, type Logger, silentLogger } from "../common/log.ts";
import { systemRandom } from "../common/random.ts";
import { encodeKey } from "../protocol/key.ts";
import { SqliteReplicaEngine } from "../store/sqlite/replica_engine.ts";
import { openSqliteStore } from "../store/sqlite/store.ts";
import {
  type Commit,
  logObject,
  snapshotPart,
} from "../../test/replica/deploy_backup.ts";
import { Replica } from "./replica.ts";
import type { Next, Position, Snapshot, Source } from "./source.ts";

const clock = systemClock;
const random = systemRandom;
const TIME_LIMIT_MS = 60_000;
const KEY = encodeKey(["k"]);
const RANGE = {
  start: KEY,
  end: new Uint8Array([...KEY, 0]),
  limit: 1,
  reverse: false,
  isPoint: true,
};

/** The clock's timers alone would let the process end. */
function test(
  name: string,
  body: (path: string) => Promise<void>,
): void {
  Deno.test(name, async () => {
    const awake = setInterval(() => {}, 1000);
    const folder = await Deno.makeTempDir({ prefix: "denokv-replica-" });
    try {
      const why = "The replica did not do what the test waits for.";
      const done = body(`${folder}/replica.sqlite`);
      await withDeadline(clock, TIME_LIMIT_MS, why, done);
    } finally {
      clearInterval(awake);
      await Deno.remove(folder, { recursive: true });
    }
  });
}

function commit(version: number, value = `${version}`): Commit {
  return { version, order: 0, mutations: [{ key: "k", value }] };
}

function position(version: number, epoch = 1): Position {
  return { version, timeMs: version, epoch, place: `at ${epoch}/${version}` };
}

function commits(after: number, version: number, epoch = 1): Next {
  return {
    kind: "commits",
    entries: logObject(1, 1, [commit(version)], version).bytes,
    afterVersion: after,
    times: [],
    position: position(version, epoch),
  };
}

/** Says what the test has put in, one after the other, and then `end`. */
class ScriptedSource implements Source {
  readonly url = "test://history";
  readonly via = "bucket";
  readonly primaryUrl = "http://primary:4512";
  newestVersion = 0;
  /** Of the next snapshot that is asked for. */
  at = position(1);
  databaseId = "00000000-0000-4000-8000-000000000000";
  private readonly script: (() => Next)[] = [];
  private more = Promise.withResolvers<void>();
  private done = Promise.withResolvers<void>();

  /** Resolves when all of it was taken and is done. */
  async say(...nexts: (() => Next)[]): Promise<void> {
    this.done = Promise.withResolvers();
    this.script.push(...nexts);
    this.more.resolve();
    this.more = Promise.withResolvers();
    await this.done.promise;
  }

  snapshot(): Promise<Snapshot> {
    const { at, databaseId } = this;
    return Promise.resolve({
      kind: "snapshot",
      databaseId,
      sizeBytes: 1,
      async load(target) {
        await target.load(snapshotPart([commit(at.version)]));
        return at;
      },
    });
  }

  asked: Position[] = [];

  async next(from: Position, signal: AbortSignal): Promise<Next> {
    this.asked.push(from);
    for (;;) {
      const next = this.script.shift();
      if (next) return next();
      this.done.resolve();
      const stopped = Promise.withResolvers<void>();
      const stop = () => stopped.resolve();
      signal.addEventListener("abort", stop);
      await Promise.race([this.more.promise, stopped.promise]);
      signal.removeEventListener("abort", stop);
      signal.throwIfAborted();
    }
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

function engineAt(path: string): SqliteReplicaEngine {
  return new SqliteReplicaEngine({
    path,
    clock,
    random,
    logger: silentLogger,
    maxWatches: 10,
    keepsHistory: true,
  });
}

function open(
  path: string,
  source: Source,
  engine = engineAt(path),
  logger: Logger = silentLogger,
): Replica {
  return new Replica({
    engine,
    source,
    clock,
    logger,
  });
}

async function started(
  path: string,
  source: Source,
  engine?: SqliteReplicaEngine,
  logger?: Logger,
): Promise<Replica> {
  const replica = open(path, source, engine, logger);
  const serving = Promise.withResolvers<void>();
  replica.start(serving.resolve).catch(serving.reject);
  await serving.promise;
  return replica;
}

async function valueIn(replica: Replica): Promise<string> {
  const [[entry]] = await replica.store.read([RANGE]);
  return new TextDecoder().decode(entry.value);
}

test("a replica serves its snapshot, then each commit, tells watches, and goes on where it was", async (path) => {
  const source = new ScriptedSource();
  const replica = await started(path, source);
  assert.equal(await valueIn(replica), "1");
  const watch = replica.store.watch([KEY]);
  assert.equal((await watch.next())!.changed[0], true);
  const told = watch.next();
  await source.say(() => commits(1, 2));
  assert.equal(
    new TextDecoder().decode((await told)!.entries[0]!.value),
    "2",
  );
  watch.cancel();
  assert.deepEqual(await replica.store.write(), { status: "writeDisabled" });
  assert.equal(replica.store.primaryUrl, "http://primary:4512");
  assert.equal(replica.report().version, 2);
  await replica.close();

  const other = new ScriptedSource();
  const again = await started(path, other);
  assert.equal(await valueIn(again), "2");
  assert.deepEqual(other.asked[0], position(2));
  await again.close();
});

test("a new copy takes the old one's place in one turn, and never an older one", async (path) => {
  const source = new ScriptedSource();
  const replica = await started(path, source);
  await source.say(() => commits(1, 20));
  // Read all the time: there is always an answer, and it never goes back.
  const seen: number[] = [];
  let isReading = true;
  const reading = (async () => {
    while (isReading) {
      seen.push(Number(await valueIn(replica)));
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  })();
  const anew = (): Next => ({ kind: "beginAnew", why: "a test says so" });
  source.at = position(30);
  await source.say(anew);
  assert.equal(await valueIn(replica), "30");
  await source.say(() => commits(30, 31));
  // Another owner has gone on from an earlier state; so has the primary.
  source.at = position(25, 2);
  await source.say(anew, () => commits(25, 32, 2));
  isReading = false;
  await reading;
  assert.deepEqual(
    [...new Set(seen)].filter((v) => v !== 25),
    [
      ...new Set(seen),
    ].filter((v) => v !== 25).sort((a, b) => a - b),
  );
  assert.equal(await valueIn(replica), "32");

  // The same owner's older state is not served: it is looked for a newer one.
  source.at = position(28, 2);
  const told = source.say(anew, anew, () => ({ kind: "end" }));
  while (replica.report().failures === 0) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.match(replica.report().lastError!, /older than what this replica has/);
  assert.equal(await valueIn(replica), "32");
  source.at = position(40, 2);
  await told;
  assert.equal(await valueIn(replica), "40");
  await replica.close();
  const left = [...Deno.readDirSync(path.replace(/\/[^/]*$/, ""))]
    .map(({ name }) => name).filter((name) => /next|former/.test(name));
  assert.deepEqual(left, []);
});

test("the copy of another database never takes the place of this one", async (path) => {
  const source = new ScriptedSource();
  const replica = await started(path, source);
  await source.say(() => commits(1, 20));
  source.at = position(30, 2);
  const { databaseId } = source;
  source.databaseId = "11111111-0000-4000-8000-000000000000";
  const anew = (): Next => ({ kind: "beginAnew", why: "a test says so" });
  const told = source.say(anew, anew);
  while (
    replica.report().failures === 0 && replica.report().version === 20
  ) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.match(replica.report().lastError!, /holds another database/);
  assert.equal(await valueIn(replica), "20");
  source.databaseId = databaseId;
  await told;
  assert.equal(await valueIn(replica), "30");
  await replica.close();
});

test("a copy that is known to be older is not loaded again and again, and that is told once", async (path) => {
  const source = new ScriptedSource();
  const lines: string[] = [];
  const logger = createLogger({
    format: "text",
    level: "info",
    clock,
    write: (line) => lines.push(line),
  });
  const replica = await started(path, source, undefined, logger);
  await source.say(() => commits(1, 20));
  lines.length = 0;
  let loads = 0;
  let drops = 0;
  const { snapshot } = source;
  source.snapshot = async () => {
    const found = await snapshot.call(source);
    const { load } = found;
    found.state = source.at;
    found.drop = () => drops++;
    found.load = (...given) => {
      loads++;
      return load(...given);
    };
    return found;
  };
  source.at = position(15);
  const anew = (): Next => ({ kind: "beginAnew", why: "a test says so" });
  const told = source.say(anew, anew, anew);
  while (replica.report().failures < 2) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.deepEqual([loads, drops], [0, 2]);
  assert.match(replica.report().lastError!, /older than what this replica has/);
  assert.equal(lines.length, 2, lines.join(""));
  source.at = position(30);
  await told;
  assert.equal(await valueIn(replica), "30");
  assert.equal(loads, 1);
  await replica.close();
});

test("a watch that begins while commits are being applied is told of them", async (path) => {
  const source = new ScriptedSource();
  const begun = Promise.withResolvers<void>();
  const go = Promise.withResolvers<void>();
  const engine = engineAt(path);
  const openWriter = engine.openWriter.bind(engine);
  engine.openWriter = async () => {
    const writer = await openWriter();
    const apply = writer.apply.bind(writer);
    writer.apply = async (given) => {
      begun.resolve();
      await go.promise;
      return await apply(given);
    };
    return writer;
  };
  const replica = await started(path, source, engine);
  const said = source.say(() => commits(1, 2));
  await begun.promise;
  const watch = replica.store.watch([KEY]);
  const text = async () =>
    new TextDecoder().decode((await watch.next())!.entries[0]!.value);
  assert.equal(await text(), "1");
  go.resolve();
  const next = withDeadline(clock, 30_000, "It was not told.", text());
  await said;
  assert.equal(await next, "2");
  watch.cancel();
  await replica.close();
});

test("what fails is told, and what is there is served until it works again", async (path) => {
  const source = new ScriptedSource();
  const replica = await started(path, source);
  const fail = (error: Error) => (): Next => {
    throw error;
  };
  const told = source.say(
    fail(new UnavailableError("no answer")),
    fail(new StartupError("damaged")),
    // Out of order: refused by the file, which stays as it was.
    () => ({
      ...commits(1, 3) as Extract<Next, { kind: "commits" }>,
      entries: logObject(1, 1, [commit(3), commit(2)], 3).bytes,
    }),
    () => commits(1, 2),
  );
  const errors = new Set<string>();
  let isDone = false;
  told.then(() => isDone = true);
  while (!isDone) {
    assert.match(await valueIn(replica), /^[12]$/);
    const { lastError } = replica.report();
    if (lastError) errors.add(lastError);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.equal([...errors].length, 3, [...errors].join("\n"));
  assert.match([...errors][2], /cannot be applied behind at 1\/1/);
  assert.equal(await valueIn(replica), "2");
  assert.equal(replica.report().lastError, undefined);
  await replica.close();
});

test("a file that is no replica, or one of another history, is left alone", async (path) => {
  const own = await openSqliteStore({ path, logger: silentLogger });
  await own.close();
  const refused = async (pattern: RegExp, source: Source) => {
    const replica = open(path, source);
    await assert.rejects(replica.start(() => {}), pattern);
    await replica.close();
  };
  await refused(/is no replica/, new ScriptedSource());
  await Deno.remove(path);
  await (await started(path, new ScriptedSource())).close();
  class Other extends ScriptedSource {
    override readonly url = "test://other" as "test://history";
  }
  await refused(/is a replica of test:\/\/history/, new Other());
});

test("while nobody reads nothing is asked, where the operator says so", async (path) => {
  const replica = await started(path, new ScriptedSource());
  const { signal } = new AbortController();
  await replica.store.whileUnread(60_000, signal);
  let isAsked = false;
  const waiting = replica.store.whileUnread(0, signal)
    .then(() => isAsked = true);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(isAsked, false);
  await valueIn(replica);
  await waiting;
  // An open watch is a reader.
  const watch = replica.store.watch([KEY]);
  await replica.store.whileUnread(0, signal);
  watch.cancel();
  const stopped = new AbortController();
  const ended = replica.store.whileUnread(0, stopped.signal);
  stopped.abort();
  await ended;
  await replica.close();
});

test("a replica whose primary never pauses has caught up when it has all that its source showed", async (path) => {
  const source = new ScriptedSource();
  const replica = await started(path, source);
  source.newestVersion = 3;
  await source.say(() => commits(1, 2));
  assert.equal(replica.hasCaughtUp, false);
  await source.say(() => commits(2, 3));
  assert.equal(replica.hasCaughtUp, true);
  await replica.close();
});
