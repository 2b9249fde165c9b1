/**
 * The Dockerfile and compose.yaml, run by hand: what they copy, cache and
 * start is enough, also for a backup, a health check and a restore.
 */
import assert from "node:assert/strict";
import { VERSION } from "../src/cli/version.ts";
import { freePort } from "./support/child_server.ts";
import { startFakeGcs } from "./support/fake_gcs.ts";
import {
  composeService,
  type Container,
  Image,
  readSource,
} from "./support/image.ts";
import type { Variables } from "./support/launched.ts";
import { startMinio } from "./support/minio.ts";

const SECRET = "a secret of this test";

Deno.test("every image has a tag, and ours is this version's", async () => {
  const from = [...(await readSource("Dockerfile")).matchAll(/^FROM (\S+)/gm)];
  const images = [
    ...(await readSource("compose.yaml")).matchAll(/^ +image: (\S+)$/gm),
  ];
  const names = [...from, ...images].map(([, name]) => name);
  assert.equal(names.length, 3);
  for (const name of names) {
    assert.match(name, /:[\w.-]+$/);
    assert.doesNotMatch(name, /:latest$/);
  }
  assert.ok(names.includes(`denokv:${VERSION}`), names.join(" "));
});

Deno.test("the image, on a clean cache and without a registry", async (t) => {
  if (Deno.build.os !== "linux") return;
  await using image = await Image.build();
  if (image === undefined) return;

  await t.step("its own command, at the port of PORT", async () => {
    const port = freePort();
    const env = { DENO_KV_ACCESS_TOKEN: SECRET, PORT: `${port}` };
    const container = image.run(undefined, env);
    try {
      await container.listens();
      assert.match(container.log.text, /backup="no backup"/);
      assert.doesNotMatch(container.log.text, /mayNotSee/);
      // Whoever publishes the port comes from another address.
      await put(`http://127.0.0.2:${port}/key`, `Bearer ${SECRET}`);
      await isHealthy(container);
      assert.ok((await Deno.stat(image.path("/data/denokv.sqlite"))).isFile);
    } finally {
      assert.equal(await container.stop(), 0);
    }
    assert.equal((await container.health()).code, 1);
  });

  await t.step("the health check finds the address of --addr", async () => {
    const env = { KVSTORE_SECRET: SECRET };
    const container = image.run(["serve", "--addr", "127.0.0.1:0"], env);
    try {
      await container.listens();
      await isHealthy(container);
    } finally {
      assert.equal(await container.stop(), 0);
    }
  });

  await t.step("a secret in a file, and a mistake", async () => {
    const file = `${image.root}/secret`;
    await Deno.writeTextFile(file, SECRET);
    const container = image.run(["serve", "--addr", "127.0.0.1:0"], {
      DENO_KV_ACCESS_TOKEN_FILE: file,
    });
    await container.listens();
    assert.equal(await container.stop(), 0);
    const wrong = image.run(["serve", "--bakup=s3://b"], {});
    await wrong.log.isRead;
    assert.match(wrong.log.text, /did you mean --backup/);
    assert.equal(await wrong.stop(), 2);
  });

  await t.step("a backup in a folder", async () => {
    const folder = `${image.root}/backup`;
    await Deno.mkdir(folder);
    await keepsAndRestores(image, [], {
      DENO_KV_BACKUP: `file://${folder}`,
      KVSTORE_SECRET: "denorocks",
    });
  });

  await t.step("a backup on Google's emulator", async () => {
    const gcs = await startFakeGcs();
    if (gcs === undefined) return;
    try {
      await gcs.createBucket("app");
      const container = image.run(["serve", "--addr", "127.0.0.1:0"], {
        DENO_KV_BACKUP: "gs://app/image",
        DENO_KV_GCS_ENDPOINT: gcs.endpoint,
        KVSTORE_SECRET: SECRET,
      });
      try {
        await put(`${await container.listens()}/key`, SECRET);
        await isVerified(container);
      } finally {
        assert.equal(await container.stop(), 0, container.log.text);
      }
    } finally {
      await gcs.stop();
    }
  });

  await t.step(
    "compose.yaml's service, its MinIO at another address",
    async () => {
      const minio = await startMinio();
      if (minio === undefined) return;
      try {
        const { command, env } = await composeService("denokv");
        assert.ok(command.includes("--dev"), command.join(" "));
        const endpoint = "--s3-endpoint=http://minio:9000";
        assert.ok(command.includes(endpoint), command.join(" "));
        await keepsAndRestores(
          image,
          command.slice(1).filter((word) => word !== endpoint),
          {
            ...env,
            DENO_KV_S3_ENDPOINT: minio.endpoint,
            // For the commands: the server has it by --dev.
            DENO_KV_BACKUP: "s3://denokv/app",
          },
        );
      } finally {
        await minio.stop();
      }
    },
  );
});

/** A server that keeps a key, the commands beside it, and a restore. */
async function keepsAndRestores(image: Image, args: string[], env: Variables) {
  const port = freePort();
  const all: Variables = {
    ...env,
    PORT: `${port}`,
    DENO_KV_SQLITE_PATH: image.path("/data/backed-up.sqlite"),
  };
  const restored = image.path("/data/restored.sqlite");
  const container = image.run(["serve", ...args], all);
  try {
    await container.listens();
    await put(`http://127.0.0.1:${port}/key`, "denorocks");
    await isHealthy(container);
    await isVerified(container);
    await succeeds(container, /^Active: /, ["backup", "status"]);
    await succeeds(container, /newest/, ["backup", "list"]);
    const secret = { ...all, KVSTORE_SECRET: "denorocks" };
    const { code, err } = await image.exec(
      ["denokv", "backup", "snapshot"],
      secret,
    );
    assert.equal(code, 0, err);
    await succeeds(container, /^Restored /, [
      "restore",
      ...["--from", all.DENO_KV_BACKUP, "-o", restored],
    ]);
  } finally {
    assert.equal(await container.stop(), 0, container.log.text);
  }
  for (const name of ["backed-up", "restored"]) {
    for await (const file of Deno.readDir(image.path("/data"))) {
      if (!file.name.startsWith(name)) continue;
      await Deno.remove(image.path(`/data/${file.name}`));
    }
  }
}

/** It waits for what was written last. */
async function isVerified(container: Container): Promise<void> {
  await container.log.until(/The new generation is complete/);
  const said = /^Verified: .* equal to the database/;
  await succeeds(container, said, ["backup", "verify"]);
}

async function succeeds(container: Container, said: RegExp, args: string[]) {
  const { code, out, err } = await container.exec("denokv", ...args);
  assert.equal(code, 0, `${args.join(" ")}: ${out}${err}`);
  assert.match(out, said);
}

async function isHealthy(container: Container): Promise<void> {
  const { code, out, err } = await container.health();
  assert.equal(code, 0, err);
  assert.match(out, /^ready: /);
}

async function put(url: string, authorization: string): Promise<void> {
  const answer = await fetch(url, {
    method: "POST",
    headers: { authorization },
    body: "value",
  });
  assert.equal(answer.status, 200, await answer.text());
}
