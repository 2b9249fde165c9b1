/** `denokv changes`: what it prints, where it goes on, and how it ends. */
import assert from "node:assert/strict";
import { seededRandom } from "../../src/common/random.ts";
import { freePort } from "../support/child_server.ts";
import {
  ACCESS_TOKEN,
  runCommand,
  ServerProcess,
  TestFolder,
  testSeed,
} from "../support/server.ts";
import {
  changesArgs,
  commitsOf,
  type Line,
  linesOf,
  spawnChanges,
  Writer,
} from "./pipeline.ts";

const ENV = { DENO_KV_ACCESS_TOKEN: ACCESS_TOKEN };

async function put(url: string, path: string, body: string) {
  const answer = await fetch(`${url}${path}`, {
    method: "PUT",
    headers: { authorization: `Bearer ${ACCESS_TOKEN}` },
    body,
  });
  return (await answer.json()).versionstamp as string;
}

/** With exactly the permissions that it needs. */
function changes(
  server: Pick<ServerProcess, "url">,
  folder: TestFolder,
  args: string[],
  env: Record<string, string> = ENV,
) {
  return runCommand(["changes", "--url", server.url, ...args], {
    folder: folder.path,
    net: [new URL(server.url).host],
    env,
  });
}

Deno.test("what there is, as JSON and for people, and where it goes on", async () => {
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({ path: folder.database });
  const none = await changes(server, folder, []);
  assert.deepEqual([none.code, none.out, none.err], [0, "", ""]);

  const first = await put(server.url, "/users/alice", "hi");
  const resume = `${folder.path}/position`;
  const all = ["--from", "oldest", "--resume-file", resume];
  const shown = await changes(server, folder, all);
  assert.equal(shown.code, 0, shown.err);
  const line = JSON.parse(shown.out);
  assert.deepEqual([line.key, line.value], [["users", "alice"], "hi"]);
  assert.equal(await Deno.readTextFile(resume), `${first}\n`);

  const second = await put(server.url, "/b", "2");
  const next = await changes(server, folder, [...all, "--format", "text"]);
  assert.match(next.out, new RegExp(`^\\S+Z ${second} set \\["b"\\] = "2"$`));
  assert.equal(await Deno.readTextFile(resume), `${second}\n`);
  const only = await changes(server, folder, [
    "--from=oldest",
    "--prefix=/users",
    "--heartbeats",
  ]);
  assert.deepEqual(
    only.out.split("\n").map((text) => JSON.parse(text).type),
    ["heartbeat", "set", "heartbeat"],
  );
});

Deno.test("how it ends where there is no feed", async () => {
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({ path: folder.database });
  const fails = async (
    code: number,
    message: RegExp,
    args: string[],
    { env = ENV, at = server as Pick<ServerProcess, "url"> } = {},
  ) => {
    const ran = await changes(at, folder, args, env);
    assert.equal(ran.code, code, ran.err);
    assert.match(ran.err, message);
    assert.equal(ran.out, "");
  };
  const wrong = { DENO_KV_ACCESS_TOKEN: "another access token" };
  await fails(1, /refused \(401\): .*wrong/, ["--follow"], { env: wrong });
  await fails(1, /could not be asked/, [], {
    at: { url: `http://127.0.0.1:${freePort()}` },
  });
  await fails(1, /refused \(409\)/, ["--from=00000000000f42400000"]);
  await fails(1, /refused \(400\): A prefix/, ["--prefix=users"]);
  await fails(2, /--from needs a versionstamp/, ["--from=yesterday"]);
  const broken = `${folder.path}/broken`;
  await Deno.writeTextFile(broken, "nothing");
  await fails(1, /holds no versionstamp/, ["--resume-file", broken]);
  // Another program at that address.
  const other = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    () => new Response("<h1>Hello</h1>", { status: 200 }),
  );
  await fails(1, /is no denokv server/, ["--follow"], {
    at: { url: `http://127.0.0.1:${other.addr.port}` },
  });
  await other.shutdown();
});

/** What answers as a server whose log has gone on, at once or later. */
Deno.test("where the log no longer reaches back it ends with code 8, also in the middle", async () => {
  await using folder = await TestFolder.make();
  let isLater = false;
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    () =>
      isLater
        ? new Response(
          '{"type":"heartbeat","versionstamp":"00000000000000010000"}\n' +
            '{"type":"set","versionstamp":"00000000000000020000"}\n' +
            '{"type":"end","status":410,"message":"It is gone."}\n',
          { headers: { "content-type": "application/x-ndjson" } },
        )
        : new Response("It is gone.\n", { status: 410 }),
  );
  const at = { url: `http://127.0.0.1:${server.addr.port}` };
  for (isLater of [false, true]) {
    const ran = await changes(at, folder, ["--follow"]);
    assert.equal(ran.code, 8);
    assert.match(ran.err, /It is gone\./);
    // The commit that has no end is not printed.
    assert.equal(ran.out, "");
  }
  await server.shutdown();
});

Deno.test("it follows a server that is killed again and again: every commit once, whole, in order", async () => {
  await using folder = await TestFolder.make();
  const seed = testSeed();
  const random = seededRandom(seed);
  const settings = { path: folder.database, port: freePort() };
  let server = await ServerProcess.start(settings);
  const { url } = server;
  const resume = `${folder.path}/position`;
  const command = spawnChanges(url, [
    "--from=oldest",
    "--follow",
    `--resume-file=${resume}`,
  ]);
  const lines: Line[] = [];
  let last = "";
  const arrived = Promise.withResolvers<void>();
  const reading = (async () => {
    let rest = "";
    for await (
      const chunk of command.stdout.pipeThrough(new TextDecoderStream())
    ) {
      const texts = (rest + chunk).split("\n");
      rest = texts.pop()!;
      for (const text of texts) {
        const line = JSON.parse(text) as Line;
        lines.push(line);
        if (line.versionstamp === last) arrived.resolve();
      }
    }
  })();
  const writer = new Writer(url, seed);
  try {
    for (let round = 0; round < 3; round++) {
      await new Promise((done) => setTimeout(done, random.below(600)));
      await server.kill();
      server = await ServerProcess.start(settings);
    }
    await writer.stop();
    last = await put(url, "/last", "1");
    if (lines.some(({ versionstamp }) => versionstamp === last)) {
      arrived.resolve();
    }
    await arrived.promise;
    command.kill("SIGTERM");
    assert.equal((await command.status).code, 0);
    await reading;
    assert.deepEqual(commitsOf(lines), commitsOf(await linesOf(url)));
    assert.equal(await Deno.readTextFile(resume), `${last}\n`);
    for (const versionstamp of writer.acknowledged.keys()) {
      assert.ok(lines.some((line) => line.versionstamp === versionstamp));
    }
  } finally {
    await writer.stop();
    await server.kill();
  }
});

Deno.test("output that finds no room is an error, and the resume file stays behind it", async () => {
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({ path: folder.database });
  const first = await put(server.url, "/a", "1");
  const resume = `${folder.path}/position`;
  const printed = await changes(server, folder, [
    "--from=oldest",
    "--resume-file",
    resume,
  ]);
  assert.equal(printed.code, 0, printed.err);
  await put(server.url, "/b", "2");
  const { code, stderr } = await new Deno.Command("sh", {
    args: [
      "-c",
      'exec "$@" > /dev/full',
      "sh",
      ...changesArgs(server.url, ["--from=oldest", `--resume-file=${resume}`]),
    ],
    env: ENV,
    stdout: "null",
    stderr: "piped",
  }).output();
  assert.equal(code, 1);
  assert.match(
    new TextDecoder().decode(stderr),
    /Standard output could not be written: No space left/,
  );
  assert.equal(await Deno.readTextFile(resume), `${first}\n`);
});

Deno.test("whoever reads its output may stop reading", async () => {
  await using folder = await TestFolder.make();
  await using server = await ServerProcess.start({ path: folder.database });
  const command = spawnChanges(server.url, ["--from=oldest", "--follow"]);
  await put(server.url, "/a", "1");
  const reader = command.stdout.getReader();
  await reader.read();
  await reader.cancel();
  // It notices with the next lines.
  await put(server.url, "/b", "2");
  assert.equal((await command.status).code, 0);
});
