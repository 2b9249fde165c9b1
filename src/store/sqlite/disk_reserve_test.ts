import assert from "node:assert/strict";
import { seededRandom } from "../../common/random.ts";
import { DiskReserve } from "./disk_reserve.ts";

const MIB = 1024 * 1024;

async function withPath(run: (path: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  try {
    await run(`${folder}/x-reserve`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const open = (path: string, sizeBytes: number) =>
  new DiskReserve(path, sizeBytes, seededRandom(1));
const length = (path: string) => Deno.statSync(path).size;

Deno.test("a reserve is filled, given back at once and filled again", () =>
  withPath(async (path) => {
    const reserve = open(path, 3 * MIB);
    assert.equal(reserve.heldBytes, 0);
    assert.ok(await reserve.fill());
    assert.equal(length(path), 3 * MIB);
    assert.equal(reserve.heldBytes, 3 * MIB);
    assert.ok(reserve.release());
    assert.equal(length(path), 0);
    assert.equal(reserve.release(), false);
    assert.ok(await reserve.fill(MIB));
    assert.equal(length(path), MIB);
    assert.ok(await reserve.fill());
    assert.equal(length(path), 3 * MIB);
    // Nothing that a file system could make smaller.
    const bytes = Deno.readFileSync(path).subarray(0, 256);
    assert.ok(new Set(bytes).size > 100);
  }));

Deno.test("a reserve is found again, and removed where none is wanted", () =>
  withPath(async (path) => {
    await open(path, MIB).fill();
    assert.equal(open(path, MIB).heldBytes, MIB);
    assert.equal(open(path, 0).heldBytes, 0);
    assert.throws(() => length(path), Deno.errors.NotFound);
    assert.ok(await open(path, 0).fill());
    assert.throws(() => length(path), Deno.errors.NotFound);
  }));

Deno.test("a reserve that is given back while it is filled takes nothing", () =>
  withPath(async (path) => {
    const reserve = open(path, 8 * MIB);
    assert.ok(await reserve.fill(MIB));
    // At once, and in the middle of it.
    for (const turns of [0, 1, 5, 20]) {
      const filling = reserve.fill();
      for (let i = 0; i < turns; i++) await Promise.resolve();
      reserve.release();
      assert.equal(await filling, false);
      assert.equal(length(path), 0);
      assert.equal(reserve.heldBytes, 0);
    }
    const again = reserve.fill();
    await reserve.settled();
    await again;
    assert.equal(length(path), reserve.heldBytes);
  }));

Deno.test("a reserve that cannot be had says why", () =>
  withPath(async (path) => {
    const reserve = open(`${path}/no/such/folder`, MIB);
    assert.equal(await reserve.fill(), false);
    assert.match(reserve.problem!, /No such file/);
  }));
