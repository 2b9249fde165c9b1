/** The state of watched keys, as the rows are now. */
import type { Bytes } from "../../common/bytes.ts";
import type { Entry } from "../../protocol/messages.ts";
import type { WatchRead } from "../key_watch.ts";
import type { Reader } from "./reader.ts";

/** Within a read transaction, so that it is one snapshot. */
export function watchRead(
  reader: Reader,
  keys: readonly Bytes[],
  nowMs: number,
): WatchRead {
  const entries: (Entry | null)[] = [];
  const expiriesMs: number[] = [];
  for (const key of keys) {
    const row = reader.row(key);
    const isLive = row !== undefined &&
      (row.expireAtMs < 0 || row.expireAtMs > nowMs);
    expiriesMs.push(isLive && row.expireAtMs >= 0 ? row.expireAtMs : Infinity);
    if (!isLive) {
      entries.push(null);
      continue;
    }
    const { value, encoding, version } = row;
    entries.push({ key, value, encoding, version, order: 0 });
  }
  return { entries, expiriesMs };
}
