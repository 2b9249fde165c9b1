/**
 * What Google Cloud Storage answers, checked: something between here and the
 * store may have answered in its place, or cut the answer short.
 */
import { createHash } from "node:crypto";
import { fromUtf8 } from "../common/bytes.ts";
import { UnavailableError } from "../common/errors.ts";
import { unknownOutcome } from "./fetch_error.ts";
import { damaged, type GcsAnswer } from "./gcs_http.ts";
import type { VersionTag } from "./object_store.ts";

/** The members of an object's description that are asked for. */
export interface Description {
  name: string;
  /** A decimal number of bytes. */
  size: string;
  generation: string;
  timeCreated: string;
  /** In base64; a composed object has none, which nothing here writes. */
  md5Hash?: string;
}

export const FIELDS = "name,size,generation,timeCreated,md5Hash";

export interface Page {
  items: Description[];
  nextPageToken: string | undefined;
}

/** @throws UnavailableError where it is none */
export function descriptionOf(answer: GcsAnswer, what: string): Description {
  const found = parse(answer, what);
  if (isDescription(found)) return found;
  throw notGoogles(what);
}

/** @throws UnavailableError where it is none */
export function pageOf(answer: GcsAnswer, what: string): Page {
  const page = parse(answer, what);
  if (!isRecord(page)) throw notGoogles(what);
  const { items = [], nextPageToken } = page;
  if (
    !Array.isArray(items) || !items.every(isDescription) ||
    nextPageToken !== undefined && typeof nextPageToken !== "string"
  ) throw notGoogles(what);
  return { items, nextPageToken };
}

/**
 * The generation that a write has made.
 * @throws UnavailableError where the object is not what was sent
 */
export function writtenGeneration(
  answer: GcsAnswer,
  data: Uint8Array,
  what: string,
): VersionTag {
  const { generation, size, md5Hash } = descriptionOf(answer, what);
  const isWhole = Number(size) === data.length &&
    (md5Hash === undefined || md5Hash === md5(data).toBase64());
  if (isWhole) return generation;
  throw damaged(what);
}

export function md5(data: Uint8Array): Uint8Array {
  return new Uint8Array(createHash("md5").update(data).digest());
}

function isDescription(value: unknown): value is Description {
  return isRecord(value) && typeof value.name === "string" &&
    typeof value.size === "string" && /^\d+$/.test(value.size) &&
    typeof value.generation === "string" &&
    typeof value.timeCreated === "string";
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parse(answer: GcsAnswer, what: string): unknown {
  try {
    return JSON.parse(fromUtf8(answer.body) ?? "");
  } catch {
    throw notGoogles(what);
  }
}

function notGoogles(what: string): UnavailableError {
  return new UnavailableError(
    `${what}: the answer is not Google's, or not all of it${
      unknownOutcome(what)
    }`,
  );
}
