/** Real mounts for a test, in a folder of their own. */
import assert from "node:assert/strict";
import { TestFolder } from "./server.ts";

export class Mounts implements AsyncDisposable {
  private readonly mounted: string[] = [];

  private constructor(private readonly folder: TestFolder) {}

  /** Undefined, and SKIPPED, where this user may not mount anything. */
  static async open(): Promise<Mounts | undefined> {
    const mounts = new Mounts(await TestFolder.make());
    try {
      await mounts.memory("try");
      await mounts.detach("try");
      return mounts;
    } catch (error) {
      await mounts[Symbol.asyncDispose]();
      console.log(`SKIPPED: nothing can be mounted here: ${error}`);
    }
  }

  /** A folder in the test's own; it is there for its mounts. */
  path(name: string): string {
    return `${this.folder.path}/${name}`;
  }

  /** A new file system in memory. */
  async memory(name: string): Promise<void> {
    await this.mount(name, "-t", "tmpfs", "-o", "size=8m", "tmpfs");
  }

  /** What is at `from`, once more. */
  async bind(from: string, name: string): Promise<void> {
    await this.mount(name, "--bind", this.path(from));
  }

  async makeReadOnly(name: string): Promise<void> {
    await run("mount", "-o", "remount,ro,bind", this.path(name));
  }

  /** As `umount -l`: whoever has a file open there keeps it. */
  async detach(name: string): Promise<void> {
    await run("umount", "-l", this.path(name));
    this.mounted.splice(this.mounted.indexOf(name), 1);
  }

  private async mount(name: string, ...args: string[]): Promise<void> {
    await Deno.mkdir(this.path(name), { recursive: true });
    await run("mount", ...args, this.path(name));
    this.mounted.push(name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of [...this.mounted]) await this.detach(name);
    await this.folder[Symbol.asyncDispose]();
  }
}

async function run(name: string, ...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(name, { args }).output();
  assert.ok(success, new TextDecoder().decode(stderr).trim());
}
