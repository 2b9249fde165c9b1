/** The file in which `changes` keeps how far it is. */
import { messageOf, StartupError } from "../common/errors.ts";
import { missingPermission } from "../common/permissions.ts";

export class ResumeFile {
  private noted: string | undefined;
  private writing: Promise<void> | undefined;
  private failure: unknown;

  constructor(private readonly path: string) {}

  /**
   * Undefined where there is none yet.
   * @throws StartupError where it cannot be read, or holds something else
   */
  read(): string | undefined {
    let text: string;
    try {
      text = Deno.readTextFileSync(this.path).trim();
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw this.failed(error, "read");
    }
    if (/^[0-9a-f]{20}$/.test(text)) return text;
    throw new StartupError(
      `${this.path} holds no versionstamp of 20 hexadecimal digits. Nothing was asked for; name another file, or remove this one to begin where --from says.`,
    );
  }

  /**
   * All up to this versionstamp was taken. Written beside what goes on; where
   * several come meanwhile, only the last of them is.
   * @throws StartupError where an earlier one could not be written
   */
  note(versionstamp: string): void {
    if (this.failure) throw this.failure;
    this.noted = versionstamp;
    this.writing ??= this.write();
  }

  /** Resolves when the last one is in the file. @throws as `note` */
  async flush(): Promise<void> {
    await this.writing;
    if (this.failure) throw this.failure;
  }

  private async write(): Promise<void> {
    try {
      while (this.noted !== undefined) {
        const text = `${this.noted}\n`;
        this.noted = undefined;
        await replaceFile(this.path, text);
      }
    } catch (error) {
      this.failure = this.failed(error, "written");
    } finally {
      this.writing = undefined;
    }
  }

  private failed(error: unknown, done: "read" | "written"): StartupError {
    return new StartupError(
      `${this.path} could not be ${done}: ${
        missingPermission(error, this.path) ?? messageOf(error)
      } What was printed is whole; the file says how far it was before.`,
    );
  }
}

/** After a power cut the file holds the old text or the new one. */
async function replaceFile(path: string, text: string): Promise<void> {
  const beside = `${path}.new`;
  {
    using file = await Deno.create(beside);
    const bytes = new TextEncoder().encode(text);
    for (let at = 0; at < bytes.length;) {
      at += await file.write(bytes.subarray(at));
    }
    await file.syncData();
  }
  await Deno.rename(beside, path);
}
