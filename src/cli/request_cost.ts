/** What the requests of a backup cost, for `backup status`. */
import type { BackupRequests } from "../store/store.ts";

/** Amazon's S3 Standard, in dollars; deletions are free. */
const PUT_OR_LIST_DOLLARS = 0.005 / 1000;
const GET_OR_HEAD_DOLLARS = 0.0004 / 1000;
const HOUR_MS = 3_600_000;
const MONTH_HOURS = 730;
/** Before that, what a start takes would be most of the sum. */
const MIN_MS = 600_000;

export interface RequestRate {
  perHour: number;
  /** Of a month like the time since the start, on S3 Standard. */
  dollarsPerMonth: number;
}

/** Undefined where the time is too short to tell. */
export function requestRate(requests: BackupRequests): RequestRate | undefined {
  const { put, list, get, head, forMs } = requests;
  if (forMs < MIN_MS) return undefined;
  const hours = forMs / HOUR_MS;
  const dollars = (put + list) * PUT_OR_LIST_DOLLARS +
    (get + head) * GET_OR_HEAD_DOLLARS;
  const dollarsPerMonth = dollars / hours * MONTH_HOURS;
  return {
    perHour: Math.round(totalOf(requests) / hours),
    dollarsPerMonth: Math.round(dollarsPerMonth * 100) / 100,
  };
}

/** @param url the backup's; a price is told of S3 alone */
export function requestText(requests: BackupRequests, url: string): string {
  const rate = requestRate(requests);
  if (rate === undefined) {
    return `${totalOf(requests)} in the ${
      Math.round(requests.forMs / 1000)
    } s since its start`;
  }
  const { perHour, dollarsPerMonth } = rate;
  const often = `about ${perHour} an hour`;
  return url.startsWith("s3://")
    ? `${often}, about ${
      dollarsPerMonth.toFixed(2)
    } $ a month on S3 Standard, without storage and transfer`
    : often;
}

function totalOf({ put, list, get, head, ...rest }: BackupRequests): number {
  return put + list + get + head + rest.delete;
}
