import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { systemClock } from "../../common/clock.ts";
import { UnavailableError } from "../../common/errors.ts";
import { silentLogger } from "../../common/log.ts";
import { seededRandom } from "../../common/random.ts";
import { Encoding, NEVER_MS } from "../../protocol/messages.ts";
import { key } from "../contract/support.ts";
import { closeInDoubt, closeUncopied, requireAlone } from "./cut_back.ts";
import { openWriteSession, type WriteSession } from "./session.ts";
import { cutLog } from "./wal.ts";

class Place implements Disposable {
  private readonly folder = Deno.makeTempDirSync({ prefix: "denokv-test-" });
  readonly path = `${this.folder}/denokv.sqlite`;

  open(): WriteSession {
    return openWriteSession({
      path: this.path,
      clock: systemClock,
      random: seededRandom(1),
      logger: silentLogger,
    });
  }

  walFileBytes(): number {
    return Deno.statSync(`${this.path}-wal`).size;
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.folder, { recursive: true });
  }
}

/** Sets a key in a commit of its own; the log's length behind it. */
function put(session: WriteSession, name: string): number {
  session.reader.endTurn();
  session.beginStatement.run();
  session.set(key(name), new Uint8Array(10_000), Encoding.BYTES, 1, NEVER_MS);
  session.commitStatement.run();
  return session.walFrames().log;
}

function has(session: WriteSession, name: string): boolean {
  session.reader.beginTurn();
  return session.reader.row(key(name)) !== undefined;
}

Deno.test("a log that is cut ends with its last certain commit, and goes on from there", () => {
  using place = new Place();
  let session = place.open();
  const certain = put(session, "a");
  put(session, "b");
  put(session, "c");
  assert.ok(has(session, "c"));
  requireAlone(session);
  const cut = closeInDoubt(session, place.path, certain);
  assert.equal(cut.frames, certain);
  // Closing has neither copied the log nor deleted it.
  assert.ok(place.walFileBytes() > cut.lengthBytes);
  cutLog(cut);
  assert.equal(place.walFileBytes(), cut.lengthBytes);
  // Twice does no harm: a first attempt may have failed behind it.
  cutLog(cut);

  session = place.open();
  assert.equal(session.walFrames().log, certain);
  assert.deepEqual(["a", "b", "c"].map((name) => has(session, name)), [
    true,
    false,
    false,
  ]);
  put(session, "d");
  closeUncopied(session, place.path);
  session = place.open();
  assert.deepEqual(["a", "b", "d"].map((name) => has(session, name)), [
    true,
    false,
    true,
  ]);
  session.close();
});

Deno.test("a log is not cut behind what a checkpoint has copied", () => {
  using place = new Place();
  let session = place.open();
  put(session, "a");
  const copied = put(session, "b");
  session.db.exec("pragma wal_checkpoint(passive)");
  assert.equal(session.walFrames().checkpointed, copied);
  requireAlone(session);
  const cut = closeInDoubt(session, place.path, 1);
  assert.equal(cut.frames, copied);
  cutLog(cut);
  session = place.open();
  assert.ok(has(session, "a") && has(session, "b"));
  const rows = session.db.prepare("pragma integrity_check").all();
  assert.deepEqual(rows.map((row) => row.integrity_check), ["ok"]);
  session.close();
});

Deno.test("a log of which nothing is certain is cut to nothing", () => {
  using place = new Place();
  let session = place.open();
  put(session, "a");
  session.db.exec("pragma wal_checkpoint(truncate)");
  put(session, "b");
  requireAlone(session);
  cutLog(closeInDoubt(session, place.path, 0));
  assert.equal(place.walFileBytes(), 0);
  session = place.open();
  assert.ok(has(session, "a"));
  assert.equal(has(session, "b"), false);
  session.close();
});

Deno.test("while another connection is open nothing is cut, and the session stays as it is", () => {
  using place = new Place();
  const session = place.open();
  put(session, "a");
  const other = new DatabaseSync(place.path);
  const count = () => other.prepare("select count(*) as n from kv").get()!.n;
  assert.equal(count(), 1);
  for (let i = 0; i < 3; i++) {
    assert.throws(
      () => requireAlone(session),
      (error) =>
        error instanceof UnavailableError &&
        /another program has the database open/.test(error.message),
    );
    // Neither is locked out.
    assert.ok(has(session, "a"));
    put(session, `b${i}`);
    assert.equal(count(), 2 + i);
    other.exec("begin immediate; rollback");
  }
  other.close();
  requireAlone(session);
  const late = new DatabaseSync(place.path);
  assert.equal(late.prepare("select count(*) as n from kv").get()!.n, 4);
  late.close();
  session.close();
});
