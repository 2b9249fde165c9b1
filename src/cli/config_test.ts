import assert from "node:assert/strict";
import { join } from "node:path";
import { UsageError } from "../common/errors.ts";
import { writeAddressFile } from "./address_file.ts";
import {
  backupConfig,
  healthConfig,
  promoteConfig,
  restoreConfig,
  serveConfig,
  startConfig,
} from "./config.ts";
import { parseCommandLine } from "./parse.ts";

const TOKEN = "a-token-that-is-long";

function settings(args: string[], env: Record<string, string> = {}) {
  const invocation = parseCommandLine(args, (name) => env[name]);
  assert(invocation.kind === "run");
  return invocation;
}

function serve(args: string[], env: Record<string, string> = {}) {
  return serveConfig(settings(["serve", "--sqlite-path=a", ...args], env));
}

function refused(work: () => unknown, message: RegExp): void {
  assert.throws(work, (error: unknown) => {
    assert(error instanceof UsageError, String(error));
    assert.match(error.message, message);
    return true;
  });
}

Deno.test("serve, with nothing but what is needed", () => {
  const { version, ...config } = serve(["--access-token", TOKEN]);
  assert.match(version, /^\d+\.\d+\.\d+/);
  assert.deepEqual(config, {
    sqlitePath: "a",
    accessToken: TOKEN,
    restSecret: undefined,
    publicReads: false,
    address: { hostname: "0.0.0.0", port: 4512 },
    readOnly: false,
    numWorkers: 1,
    atomicWriteBatchTimeoutMs: undefined,
    logsAccess: false,
    maxInFlightBytes: 128 * 1024 * 1024,
    maxWatches: 10_000,
    drainTimeoutMs: 5000,
    maxWaitingBytes: 64 * 1024 * 1024,
    reserveBytes: 32 * 1024 * 1024,
    logFormat: "text",
    logLevel: "info",
    backup: undefined,
    corsOrigins: [],
    advertisedReplicas: undefined,
    isNamedStrong: false,
    changesRetainedBytes: 256 * 1024 * 1024,
    isDevelopment: false,
  });
});

Deno.test("a backup that is written to is named by its URL alone", () => {
  const place = (args: string[], env = {}) =>
    serve(["--access-token", TOKEN, ...args], env).backup?.place;
  const url = "s3://bucket/app";
  assert.equal(place(["--backup", url])?.url, url);
  assert.equal(
    place([], {
      DENO_KV_BACKUP: url,
      DENO_KV_S3_ENDPOINT: "http://localhost:9000",
    })?.s3Endpoint,
    "http://localhost:9000",
  );
  assert.equal(
    place(["--backup", url, "--s3-bucket=bucket", "--s3-prefix=/app/"])?.url,
    url,
  );
  refused(
    () => place(["--backup", url, "--s3-bucket=other"]),
    /named twice/,
  );
  refused(
    () => place(["--backup", url, "--s3-prefix=app"]),
    /needs --s3-bucket/,
  );
  assert.equal(
    place(["--backup=gs://bucket/app", "--gcs-endpoint=http://localhost:4443"])
      ?.gcsEndpoint,
    "http://localhost:4443",
  );
  refused(() => place(["--durability=s3"]), /needs a backup/);
  // An endpoint alone is no backup, and looks like one.
  refused(
    () => place(["--gcs-endpoint=http://localhost:4443"]),
    /without --backup: nothing would be backed up/,
  );
  refused(() => place(["--backup", url, "--read-only"]), /do not go together/);
});

Deno.test("what the Rust server reads from is not written to because --backup is missing", () => {
  const refusal = (args: string[], env = {}) =>
    refused(
      () => serve(["--access-token", TOKEN, ...args], env),
      /without --backup.*place to read from.*Nothing was opened or changed.*denokv restore --from/,
    );
  refusal(["--s3-bucket=bucket", "--s3-prefix=app/"]);
  refusal(["--s3-bucket=bucket"]);
  refusal(["--s3-prefix=app"]);
  refusal(["--s3-endpoint=http://localhost:9000"]);
  refusal([], { DENO_KV_S3_BUCKET: "bucket", DENO_KV_S3_PREFIX: "app" });
  refusal(["--dev", "--s3-bucket=bucket"]);
  // Commands that only read take the place in either way.
  const { place } = backupConfig(
    settings(["backup", "status", "--s3-bucket=bucket", "--s3-prefix=app/"]),
  );
  assert.equal(place.url, "s3://bucket/app");
  const from = restoreConfig(
    settings(["restore", "--s3-bucket=bucket", "-o", "x"]),
  );
  assert.equal(from.place.url, "s3://bucket");
});

Deno.test("--at takes a day, and a time without a zone is UTC", () => {
  const point = (at: string) =>
    restoreConfig(
      settings(["restore", "--from=file:///b", "-o", "x", `--at=${at}`]),
    ).point;
  const time = (iso: string) => ({ kind: "time", timeMs: Date.parse(iso) });
  for (
    const [at, iso] of [
      ["2026-11-21", "2026-11-21T00:00:00.000Z"],
      ["2026-11-21T06:15", "2026-11-21T06:15:00.000Z"],
      ["2026-11-21T06:15:30", "2026-11-21T06:15:30.000Z"],
      ["2026-11-21T06:15:30.25Z", "2026-11-21T06:15:30.250Z"],
      ["2026-11-21T06:15:30+02:00", "2026-11-21T04:15:30.000Z"],
    ]
  ) assert.deepEqual(point(at), time(iso), at);
  assert.deepEqual(point("00000000000000a80000"), {
    kind: "version",
    version: 0xa8,
  });
  for (
    const bad of [
      "2026-02-30",
      "2026-13-01",
      "2026-11-21T25:00Z",
      "2026-11-21T06:15 CET",
      "2026-11",
      "21.11.2026",
      "yesterday",
    ]
  ) refused(() => point(bad), /--at needs a versionstamp.*or a day/);
});

Deno.test("a lease that Google's pace does not allow is refused", () => {
  const lease = (url: string, lease: string) =>
    serve([
      "--access-token",
      TOKEN,
      `--backup=${url}`,
      `--backup-lease=${lease}`,
    ]).backup?.leaseMs;
  assert.equal(lease("s3://bucket", "1s"), 1000);
  assert.equal(lease("gs://bucket", "5s"), 5000);
  refused(() => lease("gs://bucket", "4s"), /one write a second.*5s or more/);
});

Deno.test("--dev sets what nothing else sets", () => {
  const config = serveConfig(
    settings(["serve", "--dev"]),
  );
  assert.equal(config.sqlitePath, "/tmp/denokv.sqlite");
  // Its secrets are known: nobody else on the network may reach it unasked.
  assert.deepEqual(config.address, { hostname: "localhost", port: 8000 });
  assert.equal(config.restSecret, "denorocks");
  assert.equal(config.publicReads, true);
  assert.equal(config.isDevelopment, true);
  assert.equal(config.backup?.place.url, "s3://denokv/app");
  assert.equal(config.backup?.place.s3Endpoint, "http://localhost:9000");
  assert.equal(config.backup?.place.s3Credentials?.accessKeyId, "minioadmin");
  const other = serveConfig(
    settings(["serve", "--dev", "--backup=file:///b", "--addr=127.0.0.1:1"], {
      KVSTORE_SECRET: "another one",
      DENO_KV_SQLITE_PATH: "/data/x",
    }),
  );
  assert.equal(other.sqlitePath, "/data/x");
  assert.equal(other.restSecret, "another one");
  assert.deepEqual(other.address, { hostname: "127.0.0.1", port: 1 });
  assert.equal(other.backup?.place.url, "file:///b");
});

Deno.test("the seed's demonstration: a secret of nine characters, REST only", () => {
  const config = serve(["--public-reads"], {
    PORT: "8000",
    KVSTORE_SECRET: "denorocks",
  });
  assert.equal(config.accessToken, undefined);
  assert.equal(config.restSecret, "denorocks");
  assert.equal(config.publicReads, true);
  assert.deepEqual(config.address, { hostname: "0.0.0.0", port: 8000 });
});

Deno.test("where it listens: --addr, or DENO_KV_HOST and PORT, each by itself", () => {
  for (
    const [args, env, hostname, port] of [
      [[], {}, "0.0.0.0", 4512],
      [[], { PORT: "1" }, "0.0.0.0", 1],
      [[], { DENO_KV_HOST: "127.0.0.1" }, "127.0.0.1", 4512],
      [[], { DENO_KV_HOST: "::1", PORT: "1" }, "::1", 1],
      [[], { DENO_KV_HOST: "[::1]" }, "::1", 4512],
      [["--dev"], { PORT: "1" }, "localhost", 1],
      [["--dev"], { DENO_KV_HOST: "0.0.0.0" }, "0.0.0.0", 8000],
      [
        ["--dev", "--addr=127.0.0.2:2"],
        { DENO_KV_HOST: "0.0.0.0", PORT: "1" },
        "127.0.0.2",
        2,
      ],
    ] as [string[], Record<string, string>, string, number][]
  ) {
    const config = serve(args, { ...env, KVSTORE_SECRET: "denorocks" });
    assert.deepEqual(config.address, { hostname, port });
  }
  refused(
    () => serve([], { DENO_KV_HOST: "http://x", KVSTORE_SECRET: "denorocks" }),
    /DENO_KV_HOST needs a host/,
  );
});

Deno.test("a server of this machine is asked where it said that it listens", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const file = `${folder}/address`;
    const asked = (args: string[], env: Record<string, string> = {}) =>
      healthConfig(settings(["health", ...args], {
        DENO_KV_ADDRESS_FILE: file,
        ...env,
      })).address;
    // No server has written it yet, or one writes this moment.
    assert.deepEqual(asked([]), { hostname: "127.0.0.1", port: 4512 });
    await Deno.writeTextFile(file, "");
    assert.deepEqual(asked([], { PORT: "1" }), {
      hostname: "127.0.0.1",
      port: 1,
    });
    assert.equal(writeAddressFile(file, "http://[::1]:8000"), undefined);
    assert.deepEqual(asked([], { PORT: "1" }), { hostname: "::1", port: 8000 });
    assert.deepEqual(asked(["--addr=127.0.0.1:2"]), {
      hostname: "127.0.0.1",
      port: 2,
    });
    assert.match(
      writeAddressFile(`${folder}/missing/address`, "http://127.0.0.1:1")!,
      /No such file/,
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("--addr beats PORT", () => {
  const config = serve(["--addr=127.0.0.1:1", "--access-token", TOKEN], {
    PORT: "8000",
  });
  assert.deepEqual(config.address, { hostname: "127.0.0.1", port: 1 });
});

Deno.test("a server that nobody could get into is refused", () => {
  refused(() => serve([]), /^Nobody could get in: .*KVSTORE_SECRET/);
  refused(() => serve(["--public-reads"]), /^Nobody could get in/);
});

Deno.test("secrets that no client could send are refused, unprinted", () => {
  refused(() => serve(["--access-token=short"]), /too short.*12 characters/);
  refused(
    () => serve([], { DENO_KV_ACCESS_TOKEN: "elevenchars" }),
    /too short/,
  );
  for (
    const bad of [
      "zwölf-zeichen",
      "two\nlines-here",
      " spaced-around ",
      "tab\tinside-it",
    ]
  ) {
    for (const name of ["DENO_KV_ACCESS_TOKEN", "KVSTORE_SECRET"]) {
      assert.throws(() => serve([], { [name]: bad }), (error: unknown) => {
        assert(error instanceof UsageError);
        assert.match(error.message, /printable ASCII/);
        assert(!error.message.includes(bad));
        return true;
      });
    }
  }
  assert.equal(
    serve([], { KVSTORE_SECRET: "x" }).restSecret,
    "x",
  );
});

Deno.test("the access token may come from a file; a flag beats the environment", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const path = join(folder, "token");
    await Deno.writeTextFile(path, `  ${TOKEN}\n`);
    const other = "another-token-that-is-long";
    assert.equal(serve([`--access-token-file=${path}`]).accessToken, TOKEN);
    assert.equal(
      serve([], { DENO_KV_ACCESS_TOKEN_FILE: path }).accessToken,
      TOKEN,
    );
    assert.equal(
      serve([`--access-token-file=${path}`], { DENO_KV_ACCESS_TOKEN: other })
        .accessToken,
      TOKEN,
    );
    assert.equal(
      serve([`--access-token=${other}`], { DENO_KV_ACCESS_TOKEN_FILE: path })
        .accessToken,
      other,
    );
    refused(
      () => serve([`--access-token-file=${path}`, `--access-token=${other}`]),
      /both given: keep one/,
    );
    refused(
      () =>
        serve([], {
          DENO_KV_ACCESS_TOKEN_FILE: path,
          DENO_KV_ACCESS_TOKEN: other,
        }),
      /both given: keep one/,
    );
    refused(
      () => serve([`--access-token-file=${folder}/missing`]),
      /missing cannot be read/,
    );
    await Deno.writeTextFile(path, "\n");
    refused(() => serve([`--access-token-file=${path}`]), /too short/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("serve needs the path of a file", () => {
  const withPath = (path: string) =>
    serveConfig(settings(["serve", "--sqlite-path", path], {
      KVSTORE_SECRET: "x",
    }));
  refused(
    () => serveConfig(settings(["serve"], { KVSTORE_SECRET: "x" })),
    /--sqlite-path .* is missing.*denokv start/,
  );
  refused(() => withPath(":memory:"), /path of a file/);
  refused(() => withPath("file:a?mode=memory"), /path of a file/);
  refused(() => withPath("a\0b"), /zero byte/);
});

Deno.test("start: its own database and address, and PORT is not asked", () => {
  const { serve } = startConfig(settings(["start"], { PORT: "8000" }));
  assert.equal(serve.sqlitePath, "./data/denokv.sqlite");
  assert.deepEqual(serve.address, { hostname: "localhost", port: 4512 });
  assert.equal(
    startConfig(settings(["start", "--sqlite-path=b/c"])).serve.sqlitePath,
    "b/c",
  );
});

Deno.test("health asks where serve would listen", () => {
  const asked = (args: string[], env: Record<string, string> = {}) =>
    healthConfig(settings(["health", ...args], env)).address;
  assert.deepEqual(asked([]), { hostname: "127.0.0.1", port: 4512 });
  assert.deepEqual(asked([], { PORT: "80" }), {
    hostname: "127.0.0.1",
    port: 80,
  });
  assert.deepEqual(asked(["--addr=[::]:81"]), { hostname: "::1", port: 81 });
});

Deno.test("a live replica needs an address and the access token, and what is advertised are addresses", () => {
  const of = (...args: string[]) => serve(["--access-token", TOKEN, ...args]);
  assert.deepEqual(of("--replica-of", "http://a:1").replica, {
    primary: { url: "http://a:1", accessToken: TOKEN },
    place: undefined,
    intervalMs: 1000,
    idlePauseMs: undefined,
  });
  const both = of("--replica-of", "http://a:1", "--replica-from", "s3://b/c");
  assert.equal(both.replica?.place?.url, "s3://b/c");
  assert.deepEqual(
    of("--advertise-replica", "http://a:1, https://b").advertisedReplicas,
    ["http://a:1", "https://b"],
  );
  assert.equal(of("--replica-endpoint", "strong").isNamedStrong, true);
  for (
    const args of [
      ["--replica-of", "a:1"],
      ["--replica-of", "http://user:secret@a:1"],
      ["--advertise-replica", "http://a:1,nowhere"],
    ]
  ) refused(() => of(...args), /needs a URL such as/);
  assert.equal(both.backup, undefined);
  refused(
    () => serve(["--replica-of", "http://a:1"], { KVSTORE_SECRET: "s" }),
    /needs the access token/,
  );
});

Deno.test("a replica that may become the owner has its primary's backup", () => {
  const of = (...args: string[]) => serve(["--access-token", TOKEN, ...args]);
  const backup = ["--backup", "s3://b/c"];
  const bucket = ["--s3-bucket", "b", "--s3-prefix", "c/"];
  for (
    const source of [
      ["--replica-of", "http://a:1"],
      ["--replica-from", "s3://b/c/"],
      ["--replica-of", "http://a:1", "--replica-from", "s3://b/c"],
      ["--sync-from-s3", ...bucket],
    ]
  ) {
    const config = of(...source, ...backup, "--durability", "s3");
    assert.equal(config.readOnly, true);
    assert.equal(config.replica?.place?.url, "s3://b/c");
    assert.equal(config.backup?.place.url, "s3://b/c");
    assert.equal(config.backup?.durability, "s3");
  }
  refused(() => of("--replica-from", "s3://b/d", ...backup), /two places/);
  refused(
    () => of("--replica-of", "http://a:1", ...backup, "--standby"),
    /by `denokv promote` alone/,
  );
});

Deno.test("promote asks a server at its address or URL, with a secret", () => {
  const asked = (args: string[], env: Record<string, string> = {}) =>
    promoteConfig(settings(["promote", ...args], env));
  const env = { DENO_KV_ACCESS_TOKEN: TOKEN };
  assert.equal(asked([], env).url, "http://127.0.0.1:4512");
  const far = asked(["--url", "https://kv.example/", "--json"], env);
  assert.deepEqual(far, {
    url: "https://kv.example",
    secret: TOKEN,
    json: true,
  });
  refused(() => asked([]), /access token or KVSTORE_SECRET is missing/);
});
