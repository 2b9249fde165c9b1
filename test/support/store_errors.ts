/** What a request to an object store is expected to fail with. */
import assert from "node:assert/strict";
import { UnavailableError } from "../../src/common/errors.ts";
import { ObjectStoreRefusedError } from "../../src/object_store/object_store.ts";

export async function isUnavailable(
  asked: Promise<unknown>,
  part = "",
): Promise<void> {
  await assert.rejects(asked, (error) => {
    assert.ok(error instanceof UnavailableError, Deno.inspect(error));
    assert.ok(error.message.includes(part), error.message);
    return true;
  });
}

export async function refused(asked: Promise<unknown>): Promise<Error> {
  const error = await asked.then(() => undefined, (error: unknown) => error);
  assert.ok(error instanceof ObjectStoreRefusedError, Deno.inspect(error));
  return error;
}
