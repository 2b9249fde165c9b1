/**
 * What a feed shows is never taken back: nothing that the disk or the bucket
 * has not got, and nothing that a failed fsync cuts away.
 */
import assert from "node:assert/strict";
import { FaultyServer, until } from "../support/faulty_server.ts";
import { ACCESS_TOKEN, ServerProcess, TestFolder } from "../support/server.ts";
import { startHttpProxy } from "../support/http_proxy.ts";
import { SHORT_LEASE, startBucket } from "../backup/support.ts";
import type { Line } from "./pipeline.ts";

const headers = { authorization: `Bearer ${ACCESS_TOKEN}` };

/** A feed that is followed. */
class Followed {
  readonly lines: Line[] = [];
  private onLine: () => void = () => {};
  private readonly ended: Promise<void>;
  private readonly abort = new AbortController();

  private constructor(answer: Response) {
    this.ended = this.read(answer);
  }

  static async open(url: string): Promise<Followed> {
    const feed = new AbortController();
    const answer = await fetch(`${url}/-/changes?from=oldest&follow=true`, {
      headers,
      signal: feed.signal,
    });
    assert.equal(answer.status, 200);
    const followed = new Followed(answer);
    followed.abort.signal.addEventListener("abort", () => feed.abort());
    return followed;
  }

  private async read(answer: Response): Promise<void> {
    let rest = "";
    const text = answer.body!.pipeThrough(new TextDecoderStream());
    try {
      for await (const chunk of text) {
        const texts = (rest + chunk).split("\n");
        rest = texts.pop()!;
        this.lines.push(...texts.map((line) => JSON.parse(line) as Line));
        this.onLine();
      }
    } catch {
      // Left below, or cut with its server.
    }
  }

  keys(): string[] {
    return this.lines.filter(({ type }) => type === "set")
      .map(({ key }) => (key as string[])[0]);
  }

  /** Waits for a line that comes after all that there are. */
  async next(isIt: (line: Line) => boolean): Promise<void> {
    const before = this.lines.length;
    while (!this.lines.slice(before).some(isIt)) {
      await new Promise<void>((resolve) => this.onLine = resolve);
    }
  }

  async leave(): Promise<void> {
    this.abort.abort();
    await this.ended;
  }
}

Deno.test("a feed shows nothing of a commit whose fsync failed, and goes on behind it", async () => {
  await using faulty = await FaultyServer.open();
  if (!faulty) return;
  await faulty.putNext("before", "1");
  const feed = await Followed.open(faulty.server.url);
  await until("the first change", () => feed.keys().includes("before"));
  faulty.shim.set({ fsyncFailures: "always" });
  await faulty.putRefused("lost", "never acknowledged");
  for (let i = 0; i < 5; i++) await faulty.putRefused(`refused ${i}`, "x");
  faulty.shim.set({});
  await faulty.untilReadiness(200);
  await faulty.putNext("after", "1");
  await until("the change after it", () => feed.keys().includes("after"));
  assert.deepEqual(feed.keys(), ["before", "after"]);
  await feed.leave();
});

Deno.test("with durability s3 a feed shows a commit when the bucket has it, and not before", async () => {
  await using bucket = await startBucket();
  if (bucket === undefined) return;
  const proxy = await startHttpProxy(bucket.minio.endpoint);
  await using folder = await TestFolder.make();
  try {
    await using server = await ServerProcess.start({
      path: folder.database,
      backup: bucket.at("feed", proxy.endpoint),
      args: ["--durability", "s3", ...SHORT_LEASE],
    });
    const put = (key: string) =>
      fetch(`${server.url}/${key}`, { method: "PUT", headers, body: "1" });
    assert.equal((await put("before")).status, 200);
    const feed = await Followed.open(server.url);
    await until("the first change", () => feed.keys().includes("before"));
    // The lease goes on, the segments do not.
    let held = 0;
    proxy.rule = ({ method, path }) => {
      if (method !== "PUT" || /lease|owner|manifest/.test(path)) {
        return undefined;
      }
      held++;
      return { kind: "answer", status: 503 };
    };
    const waiting = put("waiting");
    await until("an upload that is refused", () => held > 0);
    // Of all that there is to say, until the feed has nothing more.
    await feed.next(({ type }) => type === "heartbeat");
    assert.deepEqual(feed.keys(), ["before"]);
    proxy.rule = () => undefined;
    assert.equal((await waiting).status, 200);
    await until("the second change", () => feed.keys().includes("waiting"));
    await feed.leave();
  } finally {
    await proxy.stop();
  }
});
