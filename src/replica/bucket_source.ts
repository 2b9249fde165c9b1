/**
 * A history out of a bucket, with a manifest or without one. Which of the two
 * it is shows when there is something: until then it is waited for.
 */
import { sleepUntil } from "../common/clock.ts";
import { differentialKey, MANIFEST_KEY } from "../backup/names.ts";
import { BackupSource, isBackupPlace } from "./backup_source.ts";
import { FolderSource, isFolderPlace } from "./folder_source.ts";
import type { BucketSourceOptions } from "./bucket_options.ts";
import type { Next, Position, Snapshot, Source } from "./source.ts";

type Inner = BackupSource | FolderSource;

export class BucketSource implements Source {
  readonly via = "bucket";
  private inner: Inner | undefined;

  constructor(private readonly options: BucketSourceOptions) {}

  get url(): string {
    return this.options.objects.url;
  }

  get primaryUrl(): string | undefined {
    return this.inner?.primaryUrl;
  }

  get newestVersion(): number {
    return this.inner?.newestVersion ?? 0;
  }

  async snapshot(
    signal: AbortSignal,
    which?: "newest" | "earliest",
  ): Promise<Snapshot | Extract<Next, { kind: "notYet" }>> {
    this.inner ??= await this.find(signal);
    if (this.inner !== undefined) {
      return await this.inner.snapshot(signal, which);
    }
    return {
      kind: "notYet",
      why:
        `${this.url} holds neither a backup's ${MANIFEST_KEY} nor a whole snapshot (${
          differentialKey("")
        }).`,
    };
  }

  async next(position: Position, signal: AbortSignal): Promise<Next> {
    if (this.inner === undefined) {
      const { options } = this;
      if (isBackupPlace(position.place)) this.inner = new BackupSource(options);
      else if (isFolderPlace(position.place)) {
        this.inner = new FolderSource(options);
      } else this.inner = await this.find(signal);
    }
    if (this.inner !== undefined) {
      return await this.inner.next(position, signal);
    }
    await sleepUntil(this.options.clock, this.options.intervalMs, signal);
    return { kind: "notYet", why: `${this.url} holds nothing.` };
  }

  private async find(signal: AbortSignal): Promise<Inner | undefined> {
    const { objects } = this.options;
    if (await objects.head(MANIFEST_KEY, { signal })) {
      return new BackupSource(this.options);
    }
    if (await objects.head(differentialKey(""), { signal })) {
      return new FolderSource(this.options);
    }
    return undefined;
  }

  close(): Promise<void> {
    return this.options.objects.close();
  }
}
