/** What an error of the AWS client means to the caller. */
import { UnavailableError } from "../common/errors.ts";
import { missingPermission } from "../common/permissions.ts";
import { ALL_PERMISSIONS, unknownOutcome, withCause } from "./fetch_error.ts";
import { ObjectStoreRefusedError } from "./object_store.ts";
import { NOT_S3 } from "./s3_http.ts";

/** The parts of an SDK error that say what happened. */
interface SdkError {
  name: string;
  message: string;
  /** The HTTP status, or undefined where no answer came. */
  status: number | undefined;
}

/** S3's own names for refusals that pass, whatever their status. */
const PASSING = new Set([
  "RequestTimeout",
  "RequestTimeTooSkewed",
  "SlowDown",
  "TooManyRequests",
  "OperationAborted",
  "ConditionalRequestConflict",
]);

/** Statuses below 500 that pass by themselves. */
const PASSING_STATUS = new Set([408, 409, 425, 429]);

/** What can be done about a refusal, by the name the store gives it. */
const ADVICE: Record<string, string> = {
  NoSuchBucket: "Create the bucket, or correct its name.",
  InvalidBucketName: "Correct the bucket's name.",
  AccessDenied: "Allow these credentials to read, write, list and delete " +
    "there (without the right to list, S3 says this of a missing object too).",
  InvalidAccessKeyId: "Correct the access key.",
  SignatureDoesNotMatch: "Correct the secret key; where there is a proxy " +
    "before the store, let it pass every header on unchanged.",
  ExpiredToken: "Renew the credentials.",
  PermanentRedirect: "The bucket is in another region: name it.",
  AuthorizationHeaderMalformed: "The bucket is in another region: name it.",
  CredentialsProviderError: "Give credentials in AWS_ACCESS_KEY_ID and " +
    "AWS_SECRET_ACCESS_KEY, or in any other way that AWS's tools take.",
  NotImplemented: "This store lacks a part of S3 that a backup needs.",
};

function read(error: unknown): SdkError {
  if (!(error instanceof Error)) {
    return { name: "Error", message: String(error), status: undefined };
  }
  const metadata = "$metadata" in error
    ? error.$metadata as { httpStatusCode?: number }
    : undefined;
  const status = metadata?.httpStatusCode;
  return {
    name: error.name,
    message: status === undefined ? withCause(error) : error.message,
    status,
  };
}

/** A condition of the request did not hold, so it was not carried out. */
export function isConflict(error: unknown): boolean {
  return read(error).status === 412;
}

/**
 * The object is missing; a missing bucket is another thing. A 404 without S3's
 * own word for it comes from something else, such as a proxy or a wrong
 * endpoint, and must not look like a backup that is empty or gone.
 * @param hasBody false for a HEAD, whose answer has no room for the word
 */
export function isMissing(error: unknown, hasBody: boolean): boolean {
  const { status, name } = read(error);
  return status === 404 &&
    (name === "NoSuchKey" || !hasBody && name !== "NoSuchBucket");
}

/** The range begins at or after the object's end. */
export function isPastEnd(error: unknown): boolean {
  return read(error).status === 416;
}

/**
 * The error to throw instead. The SDK's own carries the whole exchange,
 * signatures included, so it is not passed on.
 *
 * @param what the request, as in "Reading x": begins the sentence
 */
export function explain(error: unknown, what: string): unknown {
  if (
    error instanceof RangeError || error instanceof UnavailableError ||
    error instanceof ObjectStoreRefusedError
  ) return error;
  const missing = missingPermission(error);
  if (missing !== undefined) {
    return new ObjectStoreRefusedError(`${missing} ${ALL_PERMISSIONS}`);
  }
  const { name, message, status } = read(error);
  // What cannot be parsed, or is a 404 that says nothing, is not S3's.
  if (
    name === NOT_S3 || /XML parse error/.test(message) ||
    status === 404 && name === "NotFound"
  ) return notS3(what, status);
  const said = [status, name, message.trim().replace(/[.\s]+$/, "")]
    // The names of the language's own errors say nothing to a person.
    .filter((part) =>
      part !== undefined && !["", "Error", "TypeError"].includes(`${part}`)
    )
    .join(", ");
  if (isFinal(name, message, status)) {
    const advice = ADVICE[name] ??
      (/region is missing/i.test(message)
        ? "Name the region, in AWS_REGION for example."
        : "Nothing was changed.");
    return new ObjectStoreRefusedError(
      `${what} was refused (${said}). ${advice}`,
    );
  }
  if (/InvalidContentType/.test(message)) {
    return new UnavailableError(
      `${what} got no good answer (${said}). What answers there does not speak TLS: if that is meant, name the endpoint with http://.`,
    );
  }
  return new UnavailableError(
    `${what} got no good answer (${said})${unknownOutcome(what)}`,
  );
}

function notS3(what: string, status: number | undefined): Error {
  const message =
    `${what} got an answer that is not an S3's (status ${status}). Something else answers at the endpoint: check it, and what is between here and the store.`;
  return status !== undefined && isFinal("", "", status)
    ? new ObjectStoreRefusedError(message)
    : new UnavailableError(`${message} It can be tried again.`);
}

function isFinal(
  name: string,
  message: string,
  status: number | undefined,
): boolean {
  if (PASSING.has(name)) return false;
  if (name === "CredentialsProviderError") return true;
  if (status === undefined) return /region is missing/i.test(message);
  if (status === 501) return true;
  return status >= 300 && status < 500 && !PASSING_STATUS.has(status);
}
