/**
 * Rows that another program wrote and that are not as Deno KV writes them: a
 * text where a blob belongs, a number that no number of this language holds.
 * Each hurts only itself (docs/formats/sqlite-file.md). Reads first take every
 * row for a usual one; only where that fails is a row looked at with the SQL
 * below, which never fails.
 */

/** Above it, numbers of this language are no longer exact. */
export const MAX_NUMBER = Number.MAX_SAFE_INTEGER;

const number = (column: string) => `cast(${column} as integer)`;

/** Whether a row of `kv` can be handed out. */
export const READABLE = `v is not null and ${
  number("v_encoding")
} between 1 and 3 and ${number("version")} between 0 and ${MAX_NUMBER}`;

/**
 * What is no number never expires (SQLite sorts it behind all numbers), what
 * is too large is clamped, and a fraction expires with its last millisecond.
 */
const EXPIRATION =
  `case when expiration_ms < 0 or typeof(expiration_ms) in ('text', 'blob') then -1 when expiration_ms >= ${MAX_NUMBER} then ${MAX_NUMBER} else ${
    number("expiration_ms")
  } + (expiration_ms > ${number("expiration_ms")}) end`;

/** Value, encoding, version, expiry; nulls where the row is unreadable. */
export const FOREIGN_COLUMNS = [
  "cast(v as blob)",
  number("v_encoding"),
  number("version"),
  EXPIRATION,
].map((value) => `case when ${READABLE} then ${value} end`).join(", ");

/** Rows of a snapshot, in key order. */
export const SNAPSHOT_ROWS = `select k, cast(v as blob), ${
  number("v_encoding")
}, ${
  number("version")
}, case when typeof(seq) = 'integer' and seq between 0 and 65535 then seq else 0 end, ${EXPIRATION} from kv where typeof(k) = 'blob' and ${READABLE} order by k`;

/** Rows that may be deleted once they have expired. */
export const CAN_EXPIRE =
  `expiration_ms between 0 and ${MAX_NUMBER} and typeof(k) = 'blob'`;

/**
 * A version above it, or none that is a whole number, is not taken over: nobody
 * gets there by counting, and exact numbers end at 2^53.
 */
const MAX_FOREIGN_VERSION = 2 ** 52;

/** SQL: whether the column holds a whole number that can be gone on from. */
export function isCount(column: string): string {
  return `typeof(${column}) = 'integer' and ${column} between 0 and ${MAX_FOREIGN_VERSION}`;
}

/** Null, or no row, where it is no version. */
export const SELECT_DATA_VERSION = `select case when ${
  isCount("version")
} then version end as version from data_version where k = 0`;

/** No row where there is none that can be gone on from. */
export const SELECT_LOG_HEAD = `select version, time_ms from denokv_log where ${
  isCount("version")
} and ${isCount("time_ms")} order by version desc limit 1`;
