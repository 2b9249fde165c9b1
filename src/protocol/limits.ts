/**
 * Every limit of the KV Connect protocol and of this server, each with its
 * unit in its name. The protocol's are the ones that Deno's own client
 * enforces too; an operator does not change them.
 */

/** A key that is written, checked or watched. */
export const MAX_WRITE_KEY_BYTES = 2048;
/** A key or bound in a read: one more, for the 0x00 after a longest key. */
export const MAX_READ_KEY_BYTES = 2049;
export const MAX_VALUE_BYTES = 65_536;
/**
 * The digits of a bigint that is summed: the stored one, the operand, a bound
 * and the result. 2,466 decimal digits, twice an RSA key; neither Deno's
 * client nor its tests sum more than a few. 1000 sums of such in one write
 * take a millisecond; of the 64 KiB that a value may have they took seconds.
 */
export const MAX_SUM_BIGINT_BYTES = 1024;
export const MAX_RANGES_PER_READ = 10;
/** Over all ranges of one read. */
export const MAX_ENTRIES_PER_READ = 1000;
/** What Deno's client allows; the Rust server stops at 10. */
export const MAX_CHECKS = 100;
/** Mutations and enqueues of one atomic write together. */
export const MAX_MUTATIONS = 1000;
/** Keys, values and payloads of one atomic write together. */
export const MAX_ATOMIC_WRITE_BYTES = 819_200;
export const MAX_WATCHED_KEYS = 10;
export const MAX_QUEUE_DELAY_MS = 30 * 24 * 3_600_000;
export const MAX_UNDELIVERED_KEYS = 10;
export const MAX_BACKOFF_INTERVALS = 10;
export const MAX_BACKOFF_INTERVAL_MS = 3_600_000;
export const MIN_ACCESS_TOKEN_CHARS = 12;

/** Longest body of a metadata exchange. */
export const MAX_METADATA_BODY_BYTES = 4096;
/** A read of 10 ranges with two longest bounds each, and its framing. */
export const MAX_READ_BODY_BYTES = 65_536;
/**
 * A largest atomic write, its 100 checks, the undelivered keys of its
 * enqueues, and the framing of a thousand of each.
 */
export const MAX_WRITE_BODY_BYTES = 4 * 1024 * 1024;
export const MAX_WATCH_BODY_BYTES = 65_536;

/**
 * Fields of one request, those of the messages in it included. A largest
 * atomic write of any client has about 25,000; without a limit 4 MiB of empty
 * fields took 0.1 s to pass over.
 */
export const MAX_MESSAGE_FIELDS = 65_536;

/** How the suffix of a versionstamped key lengthens it: tag, 20 digits, end. */
export const VERSIONSTAMP_SUFFIX_BYTES = 22;
