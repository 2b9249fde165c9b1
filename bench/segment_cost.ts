/** What the row `write-s3` says beside its rate: what it could be at the most. */
import type { Minio } from "../test/support/minio.ts";
import { VALUE } from "./kv_client.ts";
import { processorMs } from "./servers.ts";
import type { Side } from "./side.ts";

/** A number of the server's metrics. */
export async function metric(side: Side, name: string): Promise<number> {
  const url = new URL("/-/metrics", side.client.url);
  const text = await (await fetch(url)).text();
  return Number(new RegExp(`^${name} (.*)$`, "m").exec(text)![1]);
}

/**
 * What bounds writes that wait for their segment: how many share one, how many
 * objects of its size MinIO takes alone, and the processor time of both.
 */
export class SegmentCost {
  private writes = 0;
  private segments = 0;
  private sizeBytes = 0;
  private oursMs = 0;
  private minioMs = 0;

  constructor(
    private readonly minio: Minio,
    private readonly side: Side,
    private readonly connections: number,
  ) {}

  /** Runs a load, and counts what it took. */
  async of(load: () => Promise<number>, seconds: number): Promise<number> {
    const before = await this.counts();
    const perSecond = await load();
    const after = await this.counts();
    this.writes += perSecond * seconds;
    this.segments += after.segments - before.segments;
    this.sizeBytes += after.sizeBytes - before.sizeBytes;
    this.oursMs += after.oursMs - before.oursMs;
    this.minioMs += after.minioMs - before.minioMs;
    return perSecond;
  }

  private async counts() {
    const { side, minio } = this;
    return {
      segments: await metric(side, "denokv_backup_segments_total"),
      sizeBytes: await metric(side, "denokv_backup_shipped_bytes_total"),
      oursMs: await side.processorMs(),
      minioMs: await processorMs(minio.pid),
    };
  }

  async note(seconds: number): Promise<string> {
    const { writes, segments, sizeBytes, oursMs, minioMs } = this;
    const alone = await putsPerSecond(
      this.minio,
      Math.round(sizeBytes / segments),
      seconds,
    );
    const perWriteUs = (ms: number) => ((1000 * ms) / writes).toFixed(0);
    return [
      `${(writes / segments).toFixed(0)} writes a segment`,
      `MinIO alone: ${alone.toFixed(0)} puts/s of its size, one after the ` +
      `other, so ${(this.connections * alone).toFixed(0)} writes/s`,
      `processor for a write: ours ${perWriteUs(oursMs)} µs, MinIO ${
        perWriteUs(minioMs)
      } µs`,
    ].join("; ");
  }
}

/** One put after the other, by nothing but `fetch`, and unsigned. */
async function putsPerSecond(
  minio: Minio,
  sizeBytes: number,
  seconds: number,
): Promise<number> {
  const bucket = "open-to-all";
  await minio.createBucket(bucket, { open: true });
  const body = new Uint8Array(sizeBytes).fill(VALUE[0]);
  const startedMs = performance.now();
  const untilMs = startedMs + seconds * 1000;
  let puts = 0;
  while (performance.now() < untilMs) {
    const url = `${minio.endpoint}/${bucket}/${puts++}`;
    const answer = await fetch(url, { method: "PUT", body });
    if (!answer.ok) throw new Error(await answer.text());
    await answer.body?.cancel();
  }
  return puts / ((performance.now() - startedMs) / 1000);
}
