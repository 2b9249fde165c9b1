/**
 * Writes between their arrival and their answer: how many there are, and what
 * they hold in memory. Past a limit one more is refused at once, so that a disk
 * that does not answer costs no more than that.
 */
import { UnavailableError } from "../../common/errors.ts";
import type { AtomicWrite, WriteOutcome } from "../../protocol/messages.ts";

/** Writes that may wait for their answer at once, however small. */
const MAX_WAITING_WRITES = 16_384;
/** What they may hold in memory, unless the operator says otherwise. */
const DEFAULT_MAX_WAITING_BYTES = 64 * 1024 * 1024;

/*
 * What waiting costs beside the bytes of keys and values, rounded up. Measured
 * over HTTP/2 with an fsync held: 10.9 kB of resident memory for a write of one
 * small key, 62 kB for a hundred, 620 kB for a thousand; V8 takes 96 bytes for
 * a view and 100 for a mutation. Deletions are noted once more until they are
 * durable (durable_horizon.ts).
 */
const REQUEST_BYTES = 8192;
const CHECK_BYTES = 128;
const MUTATION_BYTES = 512;
const ENQUEUE_BYTES = 256;
const UNDELIVERED_KEY_BYTES = 128;

/** A write that waits; `write` null stands for a batch of expiry deletions. */
export interface WaitingWrite {
  write: AtomicWrite | null;
  heldBytes: number;
  resolve(outcome: WriteOutcome): void;
  reject(error: Error): void;
  outcome: WriteOutcome | undefined;
}

export class WaitingWrites {
  count = 0;
  heldBytes = 0;
  /** Since the store was opened. */
  refused = 0;
  private idle: PromiseWithResolvers<void> | undefined;

  constructor(private readonly maxBytes = DEFAULT_MAX_WAITING_BYTES) {}

  /** Counts a write that is put in the queue by `enter`, or rejects. */
  admit(
    write: AtomicWrite | null,
    enter: (item: WaitingWrite) => void,
  ): Promise<WriteOutcome> {
    const heldBytes = write === null ? 0 : heldBytesOf(write);
    if (
      this.count >= MAX_WAITING_WRITES ||
      this.heldBytes + heldBytes > this.maxBytes
    ) {
      this.refused++;
      return Promise.reject(
        new UnavailableError(
          "More writes are waiting than this server keeps in memory. Nothing of this one was applied; send it again.",
        ),
      );
    }
    this.count++;
    this.heldBytes += heldBytes;
    return new Promise((resolve, reject) =>
      enter({ write, heldBytes, resolve, reject, outcome: undefined })
    );
  }

  resolve(item: WaitingWrite, outcome: WriteOutcome): void {
    this.release(item);
    item.resolve(outcome);
  }

  reject(item: WaitingWrite, error: Error): void {
    this.release(item);
    item.reject(error);
  }

  private release(item: WaitingWrite): void {
    this.heldBytes -= item.heldBytes;
    if (--this.count > 0 || this.idle === undefined) return;
    this.idle.resolve();
    this.idle = undefined;
  }

  /** Resolves when every write that was taken has its answer. */
  whenNone(): Promise<void> {
    if (this.count === 0) return Promise.resolve();
    this.idle ??= Promise.withResolvers();
    return this.idle.promise;
  }
}

/** What a write keeps in memory until it is answered, about. */
export function heldBytesOf(write: AtomicWrite): number {
  const { checks, mutations, enqueues } = write;
  let bytes = REQUEST_BYTES + checks.length * CHECK_BYTES +
    mutations.length * MUTATION_BYTES + enqueues.length * ENQUEUE_BYTES;
  for (const { keysIfUndelivered } of enqueues) {
    bytes += keysIfUndelivered.length * UNDELIVERED_KEY_BYTES;
  }
  // Views into the request's body keep the whole of it.
  return bytes + (write.heldBytes ?? keptBytesOf(write));
}

/** All keys, values and bounds of a write. */
function keptBytesOf({ checks, mutations, enqueues }: AtomicWrite): number {
  let bytes = 0;
  for (const { key } of checks) bytes += key.length;
  for (const { key, value, sumMin, sumMax } of mutations) {
    bytes += key.length + value.length;
    if (sumMin !== null) bytes += sumMin.length;
    if (sumMax !== null) bytes += sumMax.length;
  }
  for (const { payload, keysIfUndelivered } of enqueues) {
    bytes += payload.length;
    for (const key of keysIfUndelivered) bytes += key.length;
  }
  return bytes;
}
