/** What an error of the backup is, in one word for those outside. */
import {
  LocalFileError,
  StartupError,
  UnavailableError,
} from "../common/errors.ts";
import { ObjectStoreRefusedError } from "../object_store/object_store.ts";
import type { BackupErrorKind } from "../store/store.ts";
import { UnreadableError } from "./manifest.ts";
import { FencedError } from "./ownership.ts";

export function errorKindOf(error: unknown): BackupErrorKind {
  if (error instanceof FencedError) return "conflict";
  if (error instanceof ObjectStoreRefusedError) return "denied";
  // While it runs: an answer that passes.
  if (error instanceof UnreadableError) return "unreachable";
  if (error instanceof UnavailableError) return "unreachable";
  if (error instanceof LocalFileError) return "disk";
  // What was read is not what was written (restore.ts, verify.ts).
  if (error instanceof StartupError) return "damaged";
  return "other";
}
