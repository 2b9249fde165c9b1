/** A small file system of its own for a test, so that it can really be full. */
import assert from "node:assert/strict";
import { TestFolder } from "./server.ts";

export class SmallDisk implements AsyncDisposable {
  private constructor(private readonly folder: TestFolder) {}

  /** Undefined, and SKIPPED, where this user may not mount anything. */
  static async mount(sizeMib: number): Promise<SmallDisk | undefined> {
    const folder = await TestFolder.make();
    const failure = await run(
      "mount",
      ...["-t", "tmpfs", "-o", `size=${sizeMib}m`, "tmpfs", folder.path],
    ).catch(String);
    if (failure === undefined) return new SmallDisk(folder);
    await folder[Symbol.asyncDispose]();
    console.log(`SKIPPED: no small file system can be mounted: ${failure}`);
  }

  get database(): string {
    return this.folder.database;
  }

  /** Another program's file takes all the room that is left. */
  fill(): void {
    using file = Deno.openSync(this.other, { append: true, create: true });
    const chunk = new Uint8Array(64 * 1024);
    try {
      for (;;) file.writeSync(chunk);
    } catch (error) {
      assert.match(String(error), /No space left/);
    }
    // Writes of less than a chunk may still have had room.
    try {
      for (;;) file.writeSync(chunk.subarray(0, 4096));
    } catch (error) {
      assert.match(String(error), /No space left/);
    }
  }

  /** That file gives room back. */
  free(sizeMib: number): void {
    const { size } = Deno.statSync(this.other);
    Deno.truncateSync(this.other, Math.max(0, size - sizeMib * 1024 * 1024));
  }

  private get other(): string {
    return `${this.folder.path}/other`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    assert.equal(await run("umount", this.folder.path), undefined);
    await this.folder[Symbol.asyncDispose]();
  }
}

async function run(
  name: string,
  ...args: string[]
): Promise<string | undefined> {
  const { success, stderr } = await new Deno.Command(name, { args }).output();
  return success ? undefined : new TextDecoder().decode(stderr).trim();
}
