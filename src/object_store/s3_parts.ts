/** A large object sent to S3 in parts, several at once. */
import * as aws from "@aws-sdk/client-s3";
import { UnavailableError } from "../common/errors.ts";
import type { RequestOptions, VersionTag } from "./object_store.ts";
import { inParallel } from "./time_limit.ts";

/** Parts on their way at once, for one object. */
const PARALLEL_PARTS = 4;

/** How long the clean-up after a failure may take, in ms. */
const ABORT_TIMEOUT_MS = 5_000;

export interface PartedPut {
  client: aws.S3Client;
  bucket: string;
  data: Uint8Array;
  partSizeBytes: number;
  /** Runs one request within its limits, its errors made readable. */
  step<T>(
    what: string,
    work: (fullKey: string, signal: AbortSignal) => Promise<T>,
    options?: RequestOptions,
  ): Promise<T>;
}

/**
 * The object appears whole, when its last request is carried out. After a
 * failure the parts are given up; where even that fails they stay in the
 * bucket, invisible, until a lifecycle rule of the bucket removes them.
 */
export async function putInParts(put: PartedPut): Promise<VersionTag> {
  const { client, bucket: Bucket, data, partSizeBytes } = put;
  const { UploadId } = await put.step(
    "Beginning to write",
    (Key, signal) =>
      client.send(new aws.CreateMultipartUploadCommand({ Bucket, Key }), {
        abortSignal: signal,
      }),
  );
  if (UploadId === undefined) {
    throw new UnavailableError("The store began an upload without a name.");
  }
  const offsets: number[] = [];
  for (let at = 0; at < data.length; at += partSizeBytes) offsets.push(at);
  const parts: aws.CompletedPart[] = new Array(offsets.length);
  try {
    await inParallel(offsets, PARALLEL_PARTS, async (offset, index) => {
      const PartNumber = index + 1;
      const Body = data.subarray(offset, offset + partSizeBytes);
      const { ETag } = await put.step(
        `Writing part ${PartNumber} of`,
        (Key, signal) =>
          client.send(
            new aws.UploadPartCommand({
              Bucket,
              Key,
              UploadId,
              PartNumber,
              Body,
            }),
            { abortSignal: signal },
          ),
      );
      parts[index] = { PartNumber, ETag };
    });
    const { ETag } = await put.step("Writing", (Key, signal) =>
      client.send(
        new aws.CompleteMultipartUploadCommand({
          Bucket,
          Key,
          UploadId,
          MultipartUpload: { Parts: parts },
        }),
        { abortSignal: signal },
      ));
    if (ETag !== undefined) return ETag;
    throw new UnavailableError("The store ended an upload without an ETag.");
  } catch (error) {
    // Without the caller's signal, which may be what ended the upload.
    await put.step("Giving up", (Key, signal) =>
      client.send(
        new aws.AbortMultipartUploadCommand({ Bucket, Key, UploadId }),
        { abortSignal: signal },
      ), { timeoutMs: ABORT_TIMEOUT_MS }).catch(() => {});
    throw error;
  }
}
