/** The contract, held to every implementation over the real thing. */
import { systemClock } from "../common/clock.ts";
import { systemRandom } from "../common/random.ts";
import { startFakeGcs } from "../../test/support/fake_gcs.ts";
import { startMinio } from "../../test/support/minio.ts";
import { runContract } from "./contract.ts";
import { FaultyObjectStore } from "./faulty.ts";
import { GcsObjectStore } from "./gcs.ts";
import { LocalFolderStore } from "./local_folder.ts";
import { namedMemoryStore } from "./memory.ts";
import { S3ObjectStore } from "./s3.ts";

const MIB = 1024 * 1024;
const clock = systemClock;
const random = systemRandom;

Deno.test("the ObjectStore contract: memory", async (t) => {
  await runContract(t, {
    open: (folder) =>
      Promise.resolve(namedMemoryStore(`memory://contract/${folder}`, clock)),
    largeSizeBytes: 3 * MIB + 1,
  });
});

Deno.test("the ObjectStore contract: the faulty store, without faults", async (t) => {
  await runContract(t, {
    open: (folder) =>
      Promise.resolve(
        new FaultyObjectStore(
          namedMemoryStore(`memory://faulty/${folder}`, clock),
          { clock, faults: () => undefined },
        ),
      ),
    largeSizeBytes: 3 * MIB + 1,
  });
});

Deno.test("the ObjectStore contract: a local folder", async (t) => {
  const root = await Deno.makeTempDir();
  try {
    await runContract(t, {
      async open(name) {
        const folder = `${root}/${name}`;
        await Deno.mkdir(folder, { recursive: true });
        return await LocalFolderStore.open({ folder, clock, random });
      },
      largeSizeBytes: 3 * MIB + 1,
    });
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});

Deno.test("the ObjectStore contract: S3 (MinIO)", async (t) => {
  const minio = await startMinio();
  if (minio === undefined) return;
  try {
    await minio.createBucket("contract");
    await runContract(t, {
      open: (prefix) =>
        Promise.resolve(
          new S3ObjectStore({
            bucket: "contract",
            prefix,
            clock,
            endpoint: minio.endpoint,
            credentials: minio,
            partSizeBytes: 5 * MIB,
          }),
        ),
      largeSizeBytes: 12 * MIB + 1,
    });
  } finally {
    await minio.stop();
  }
});

Deno.test("the ObjectStore contract: Google Cloud Storage (emulator)", async (t) => {
  const gcs = await startFakeGcs();
  if (gcs === undefined) return;
  try {
    await gcs.createBucket("contract");
    await runContract(t, {
      open: (prefix) =>
        Promise.resolve(
          new GcsObjectStore({
            bucket: "contract",
            prefix,
            clock,
            endpoint: gcs.endpoint,
            partSizeBytes: 2 * MIB,
            // The emulator has no limit; `gcs_test.ts` sets Google's.
            writeIntervalMs: 0,
          }),
        ),
      largeSizeBytes: 5 * MIB + 1,
    });
  } finally {
    await gcs.stop();
  }
});
