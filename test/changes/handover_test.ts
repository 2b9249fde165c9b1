/** A feed that is followed while another instance takes the database over. */
import assert from "node:assert/strict";
import { SHORT_LEASE, startBucket } from "../backup/support.ts";
import { until } from "../support/faulty_server.ts";
import { ACCESS_TOKEN, ServerProcess, TestFolder } from "../support/server.ts";
import { type Line, spawnChanges } from "./pipeline.ts";

/** One address for whichever instance has the database. */
function switchboard(target: { url: string }) {
  let cut = new AbortController();
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    async (request) => {
      const { pathname, search } = new URL(request.url);
      try {
        const answer = await fetch(`${target.url}${pathname}${search}`, {
          headers: request.headers,
          signal: cut.signal,
        });
        return new Response(answer.body, answer);
      } catch {
        return new Response("Nobody is there.\n", { status: 502 });
      }
    },
  );
  return {
    url: `http://127.0.0.1:${server.addr.port}`,
    server,
    /** While it is, nobody gets through, nor do those who had. */
    set isCut(isCut: boolean) {
      if (isCut) cut.abort();
      else cut = new AbortController();
    },
  };
}

for (const isKilled of [false, true]) {
  const how = isKilled ? "taken over from a dead owner" : "handed over";
  Deno.test(`${how}: denokv changes --follow goes on at the new owner, each commit once`, async () => {
    await using bucket = await startBucket();
    if (bucket === undefined) return;
    await using one = await TestFolder.make();
    await using other = await TestFolder.make();
    const settings = {
      backup: bucket.at("feed"),
      args: ["--durability", "s3", ...SHORT_LEASE],
    };
    await using first = await ServerProcess.start({
      path: one.database,
      ...settings,
    });
    const target = { url: first.url };
    const address = switchboard(target);
    const command = spawnChanges(address.url, ["--from=oldest", "--follow"]);
    const lines: Line[] = [];
    const reading = (async () => {
      let rest = "";
      const text = command.stdout.pipeThrough(new TextDecoderStream());
      for await (const chunk of text) {
        const texts = (rest + chunk).split("\n");
        rest = texts.pop()!;
        lines.push(...texts.map((line) => JSON.parse(line) as Line));
      }
    })();
    const acknowledged: string[] = [];
    const put = async (key: string) => {
      const answer = await fetch(`${target.url}/${key}`, {
        method: "PUT",
        headers: { authorization: `Bearer ${ACCESS_TOKEN}` },
        body: "1",
      });
      assert.equal(answer.status, 200, await answer.clone().text());
      acknowledged.push((await answer.json()).versionstamp);
    };
    const isShown = (stamp: string) =>
      lines.some(({ versionstamp }) => versionstamp === stamp);
    try {
      for (let i = 0; i < 20; i++) await put(`before ${i}`);
      await until("some of it", () => acknowledged.slice(0, 5).every(isShown));
      // Whoever was behind gets the rest at the new owner, out of the backup.
      address.isCut = true;
      for (let i = 0; i < 20; i++) await put(`unseen ${i}`);
      if (isKilled) await first.kill();
      await using second = await ServerProcess.start({
        path: other.database,
        ...settings,
      });
      target.url = second.url;
      address.isCut = false;
      for (let i = 0; i < 20; i++) await put(`after ${i}`);
      await until("all changes", () => acknowledged.every(isShown));
      command.kill("SIGTERM");
      assert.equal((await command.status).code, 0);
      await reading;
      const stamps = lines.map(({ versionstamp }) => versionstamp);
      assert.deepEqual(stamps, acknowledged);
    } finally {
      await address.server.shutdown();
    }
  });
}
