/** A large object sent to Google Cloud Storage in parts, one after another. */
import { UnavailableError } from "../common/errors.ts";
import { utf8 } from "../common/bytes.ts";
import { FIELDS, writtenGeneration } from "./gcs_answers.ts";
import type { GcsHttp } from "./gcs_http.ts";
import type { VersionTag } from "./object_store.ts";

export interface PartedUpload {
  http: GcsHttp;
  path: string;
  /** The object's name in the bucket. */
  name: string;
  /** What is said of the object beside its data. */
  metadata: object;
  data: Uint8Array;
  /** A multiple of 256 KiB, as Google demands of every part but the last. */
  partSizeBytes: number;
  /** Runs one request within its limits. */
  step<T>(
    doing: string,
    work: (what: string, signal: AbortSignal) => Promise<T>,
  ): Promise<T>;
}

/** What Google answers to a part that is not the last. */
const RESUME = 308;
/** What it answers to a part of an upload that it has forgotten. */
const EXPIRED = [404, 410];

/**
 * A resumable upload. The object appears whole, with the last part; an
 * upload that is not finished is forgotten by Google after a week.
 */
export async function uploadInParts(upload: PartedUpload): Promise<VersionTag> {
  const { http, data, partSizeBytes, step } = upload;
  const session = await step("Beginning to write", async (what, signal) => {
    const { headers } = await http.send({
      method: "POST",
      path: upload.path,
      query: { uploadType: "resumable", name: upload.name, fields: FIELDS },
      headers: { "content-type": "application/json; charset=utf-8" },
      body: utf8(JSON.stringify(upload.metadata)),
      expect: [200],
      what,
      signal,
    });
    const location = headers.get("location");
    if (location !== null) return location;
    throw new UnavailableError(`${what}: the answer named no upload.`);
  });

  let offset = 0;
  while (true) {
    const end = Math.min(offset + partSizeBytes, data.length);
    const isLast = end === data.length;
    const generation = await step("Writing a part of", async (what, signal) => {
      const answer = await http.send({
        method: "PUT",
        path: session,
        headers: {
          "content-range": `bytes ${offset}-${end - 1}/${data.length}`,
        },
        body: data.subarray(offset, end),
        expect: [...EXPIRED, ...isLast ? [200, 201] : [RESUME]],
        what,
        signal,
      });
      if (EXPIRED.includes(answer.status)) {
        throw new UnavailableError(
          `${what}: the store has forgotten the upload; its session has expired. It can be tried again, from the beginning.`,
        );
      }
      if (isLast) return writtenGeneration(answer, data, what);
      // Google may keep less of a part than was sent; it says how much.
      const kept = answer.headers.get("range")?.match(/^bytes=0-(\d+)$/)?.[1];
      if (kept === undefined || Number(kept) + 1 !== end) {
        throw new UnavailableError(
          `${what} was cut short by the store. It can be tried again.`,
        );
      }
      return undefined;
    });
    if (generation !== undefined) return generation;
    offset = end;
  }
}
