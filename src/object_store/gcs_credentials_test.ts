/** Google's credentials: where they come from, go to, and how they fail. */
import assert from "node:assert/strict";
import { isUnavailable, refused } from "../../test/support/store_errors.ts";
import { utf8 } from "../common/bytes.ts";
import { systemClock } from "../common/clock.ts";
import { GcsObjectStore } from "./gcs.ts";
import { GcsHttp } from "./gcs_http.ts";

Deno.test("Google's credentials come from its own chain, and go to it alone", async () => {
  let tokens = 0;
  const seen: (string | null)[] = [];
  const fake = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    (request) => {
      const { pathname } = new URL(request.url);
      if (pathname.startsWith("/computeMetadata/")) {
        if (pathname.endsWith("/token")) tokens++;
        return Response.json(
          { access_token: "token-of-machine", expires_in: 3600 },
          { headers: { "metadata-flavor": "Google" } },
        );
      }
      seen.push(request.headers.get("authorization"));
      return Response.json({});
    },
  );
  const { port } = fake.addr;
  // What a machine of Google's has by itself, for this process.
  Deno.env.set("GCE_METADATA_HOST", `127.0.0.1:${port}`);
  Deno.env.set("CLOUDSDK_CONFIG", "/nonexistent");
  const home = `http://127.0.0.1:${port}`;
  const request = {
    method: "GET" as const,
    expect: [200],
    what: "Reading",
    signal: new AbortController().signal,
  };
  try {
    const http = new GcsHttp({ endpoint: home, isAnonymous: false });
    await http.send({ ...request, path: "/a" });
    await http.send({ ...request, path: "/b" });
    await http.send({ ...request, path: `http://localhost:${port}/c` });
    assert.deepEqual(seen, [
      "Bearer token-of-machine",
      "Bearer token-of-machine",
      null,
    ]);
    assert.equal(tokens, 1);

    // In the clear nothing is sent, whatever the machine could give.
    const store = new GcsObjectStore({
      bucket: "bucket",
      prefix: "",
      clock: systemClock,
      endpoint: home,
    });
    await Array.fromAsync(store.list(""));
    assert.equal(seen.at(-1), null);
  } finally {
    Deno.env.delete("GCE_METADATA_HOST");
    Deno.env.delete("CLOUDSDK_CONFIG");
    await fake.shutdown();
  }
});

Deno.test("a token that was revoked is replaced, once", async () => {
  let issued = 0;
  let valid = "token-1";
  let isDenied = false;
  const seen: (string | null)[] = [];
  const fake = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    (request) => {
      if (new URL(request.url).pathname === "/token") {
        const access_token = `token-${++issued}`;
        return Response.json({ access_token, expires_in: 3600 });
      }
      const token = request.headers.get("authorization");
      seen.push(token);
      return token === `Bearer ${valid}` && !isDenied
        ? Response.json({})
        : Response.json({ error: { message: "Invalid Credentials" } }, {
          status: 401,
        });
    },
  );
  const home = `http://127.0.0.1:${fake.addr.port}`;
  await using _key = await keyFile(`${home}/token`);
  const request = {
    method: "GET" as const,
    path: "/a",
    expect: [200],
    what: "Reading",
    signal: new AbortController().signal,
  };
  try {
    const http = new GcsHttp({ endpoint: home, isAnonymous: false });
    await http.send(request);
    valid = "token-2";
    // Together they ask for one new token, not for one each.
    await Promise.all([http.send(request), http.send(request)]);
    assert.equal(issued, 2);
    await http.send(request);
    assert.equal(issued, 2);

    isDenied = true;
    seen.length = 0;
    await refused(http.send(request));
    assert.deepEqual(seen, ["Bearer token-2", "Bearer token-3"]);
  } finally {
    await fake.shutdown();
  }
});

Deno.test("Google's token service that does not answer is an outage", async () => {
  let answer = () => new Response("no", { status: 503 });
  const fake = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    () => answer(),
  );
  const open = () =>
    new GcsObjectStore({
      bucket: "bucket",
      prefix: "",
      clock: systemClock,
      endpoint: "https://127.0.0.1:1",
    });
  try {
    {
      await using _key = await keyFile("http://127.0.0.1:1/token");
      await isUnavailable(open().get("a"), "no answer");
    }
    const store = open();
    await using _key = await keyFile(`http://127.0.0.1:${fake.addr.port}/`);
    for (const status of [500, 503, 429]) {
      answer = () => new Response("no", { status });
      await isUnavailable(store.get("a"));
    }
    answer = () => Response.json({ error: "invalid_grant" }, { status: 400 });
    const { message } = await refused(store.get("a"));
    assert.match(message, /invalid_grant/);
  } finally {
    await fake.shutdown();
  }
});

Deno.test("a permission that the way to a token lacks is named, and not waited for", async () => {
  const module = new URL("./gcs_http.ts", import.meta.url).href;
  const config = new URL("../../deno.json", import.meta.url).pathname;
  const folder = await Deno.makeTempDir();
  try {
    for (
      const [credentials, host] of [
        [{ ...USER_ACCOUNT }, "oauth2.googleapis.com:443"],
        [{
          ...EXTERNAL_ACCOUNT,
          credential_source: { file: `${folder}/key.json` },
        }, "127.0.0.1:1"],
      ] as const
    ) {
      await Deno.writeTextFile(
        `${folder}/key.json`,
        JSON.stringify(credentials),
      );
      const child = new Deno.Command(Deno.execPath(), {
        args: [
          ...["run", "--no-prompt", `--config=${config}`, "--allow-read"],
          ...["--allow-env", "--allow-sys", "--allow-net=127.0.0.1:2", "-"],
        ],
        env: { GOOGLE_APPLICATION_CREDENTIALS: `${folder}/key.json` },
        stdin: "piped",
        stdout: "piped",
      }).spawn();
      const input = child.stdin.getWriter();
      await input.write(utf8(`
        import { GcsHttp } from "${module}";
        const http = new GcsHttp({
          endpoint: "https://127.0.0.1:2",
          isAnonymous: false,
        });
        await http.send({
          method: "GET",
          path: "/a",
          expect: [200],
          what: "Reading",
          signal: new AbortController().signal,
        }).catch(({ name, message }) => console.log(name, message));
      `));
      await input.close();
      const said = new TextDecoder().decode((await child.output()).stdout);
      assert.match(said, /^ObjectStoreRefusedError /);
      assert.ok(said.includes(`--allow-net=${host}`), said);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

const USER_ACCOUNT = {
  type: "authorized_user",
  client_id: "a",
  client_secret: "b",
  refresh_token: "c",
};

const EXTERNAL_ACCOUNT = {
  type: "external_account",
  audience: "//iam.googleapis.com/projects/1/x",
  subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
  token_url: "http://127.0.0.1:1/token",
  credential_source: { file: "/nonexistent/subject" },
};

/**
 * Credentials of another provider, which are exchanged for Google's tokens
 * where the file says, as GOOGLE_APPLICATION_CREDENTIALS for a while.
 */
async function keyFile(tokenUrl: string): Promise<AsyncDisposable> {
  const folder = await Deno.makeTempDir();
  await Deno.writeTextFile(`${folder}/subject`, "subject-token");
  await Deno.writeTextFile(
    `${folder}/key.json`,
    JSON.stringify({
      ...EXTERNAL_ACCOUNT,
      token_url: tokenUrl,
      credential_source: { file: `${folder}/subject` },
    }),
  );
  Deno.env.set("GOOGLE_APPLICATION_CREDENTIALS", `${folder}/key.json`);
  return {
    async [Symbol.asyncDispose]() {
      Deno.env.delete("GOOGLE_APPLICATION_CREDENTIALS");
      await Deno.remove(folder, { recursive: true });
    },
  };
}

Deno.test("without Google credentials the way to give them is told", async () => {
  const folder = await Deno.makeTempDir();
  const key = `${folder}/key.json`;
  await Deno.writeTextFile(key, '{"type":"none of Google\'s"}');
  Deno.env.set("GOOGLE_APPLICATION_CREDENTIALS", key);
  try {
    const store = new GcsObjectStore({
      bucket: "bucket",
      prefix: "",
      clock: systemClock,
      endpoint: "https://127.0.0.1:1",
    });
    const { message } = await refused(store.get("a"));
    assert.match(message, /GOOGLE_APPLICATION_CREDENTIALS/);
    // A file that is not there will not come by itself.
    await Deno.writeTextFile(key, JSON.stringify(EXTERNAL_ACCOUNT));
    await refused(store.get("a"));
    Deno.env.set("GOOGLE_APPLICATION_CREDENTIALS", `${folder}/missing.json`);
    await refused(store.get("a"));
  } finally {
    Deno.env.delete("GOOGLE_APPLICATION_CREDENTIALS");
    await Deno.remove(folder, { recursive: true });
  }
});
