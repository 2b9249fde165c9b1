/**
 * A file beside the database that only takes up room. When the disk is full it
 * is given back: then deletions, and the checkpoint that they need, have room
 * (docs/decisions/full-disk.md).
 */
import { messageOf } from "../../common/errors.ts";
import type { Random } from "../../common/random.ts";

const CHUNK_BYTES = 1024 * 1024;

export class DiskReserve {
  /** What the file takes at present. */
  heldBytes = 0;
  /** Why it is not whole, where it is not. */
  problem: string | undefined;
  private wantedBytes = 0;
  private filling: Promise<void> | undefined;

  /** @param sizeBytes 0: there is none, and one that was there is removed */
  constructor(
    private readonly path: string,
    readonly sizeBytes: number,
    private readonly random: Random,
  ) {
    try {
      if (sizeBytes === 0) Deno.removeSync(path);
      else this.heldBytes = Deno.statSync(path).size;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) {
        this.problem = messageOf(error);
      }
    }
  }

  /**
   * Makes the file so long; whether it is now. Where there is no room for that,
   * it keeps what it had.
   */
  async fill(sizeBytes = this.sizeBytes): Promise<boolean> {
    this.wantedBytes = sizeBytes;
    await this.filling;
    if (this.heldBytes < this.wantedBytes) {
      this.filling = this.grow();
      await this.filling;
      this.filling = undefined;
    }
    return this.heldBytes >= sizeBytes;
  }

  private async grow(): Promise<void> {
    const { path, heldBytes } = this;
    // What can be compressed would reserve nothing on some file systems.
    const chunk = this.random.bytes(CHUNK_BYTES);
    try {
      using file = await Deno.open(path, {
        create: true,
        write: true,
        mode: 0o600,
      });
      try {
        await file.seek(heldBytes, Deno.SeekMode.Start);
        let at = heldBytes;
        while (at < this.wantedBytes) {
          at += await file.write(chunk.subarray(0, this.wantedBytes - at));
        }
        this.heldBytes = at;
        this.problem = undefined;
      } catch (error) {
        file.truncateSync(heldBytes);
        throw error;
      } finally {
        // Given back meanwhile.
        if (this.wantedBytes === 0) this.release();
      }
    } catch (error) {
      this.problem = messageOf(error);
    }
  }

  /** Gives the room back, at once; whether there was any. */
  release(): boolean {
    this.wantedBytes = 0;
    if (this.heldBytes === 0) return false;
    this.heldBytes = 0;
    try {
      Deno.truncateSync(this.path, 0);
      return true;
    } catch (error) {
      this.problem = messageOf(error);
      return false;
    }
  }

  /** Resolves when nothing is written to it any more; what it has stays. */
  async settled(): Promise<void> {
    this.wantedBytes = Math.min(this.wantedBytes, this.heldBytes);
    await this.filling;
  }
}
