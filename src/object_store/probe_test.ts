import assert from "node:assert/strict";
import { systemClock } from "../common/clock.ts";
import { UnavailableError } from "../common/errors.ts";
import { seededRandom } from "../common/random.ts";
import { MemoryObjectStore } from "./memory.ts";
import {
  type ObjectStore,
  ObjectStoreRefusedError,
  type WriteResult,
} from "./object_store.ts";
import { probe } from "./probe.ts";

type Conditional = "create" | "replace";

/** A store whose first calls of one kind are answered in another way. */
function storeWith(
  method: Conditional,
  answer: (act: () => Promise<WriteResult>) => Promise<WriteResult>,
): ObjectStore {
  const objects = new MemoryObjectStore({ clock: systemClock });
  return new Proxy<ObjectStore>(objects, {
    get(target, name: keyof ObjectStore) {
      const value = target[name];
      if (typeof value !== "function") return value;
      const call = (value as (...args: unknown[]) => unknown).bind(target);
      if (name !== method) return call;
      return (...args: unknown[]) =>
        answer(() => call(...args) as Promise<WriteResult>);
    },
  });
}

Deno.test("a conflict with its own repeated request proves nothing, and is tried again", async () => {
  for (const method of ["create", "replace"] as const) {
    let isFirst = true;
    const store = storeWith(method, async (act) => {
      const result = await act();
      if (!isFirst) return result;
      isFirst = false;
      return { written: false };
    });
    await assert.rejects(probe(store, seededRandom(1)), UnavailableError);
    assert.deepEqual(await probe(store, seededRandom(2)), { ok: true });
  }
});

Deno.test("a store that refuses what it should take is told of", async () => {
  const refusals: Record<Conditional, RegExp> = {
    create: /refused to create an object that was not there/,
    replace: /refused to replace an object whose version had not changed/,
  };
  for (const method of ["create", "replace"] as const) {
    const store = storeWith(method, () => Promise.resolve({ written: false }));
    const result = await probe(store, seededRandom(1));
    assert.ok(!result.ok);
    assert.match(result.reason, refusals[method]);
  }
});

Deno.test("that nothing may be deleted is said, and no reason to refuse", async () => {
  const objects = new MemoryObjectStore({ clock: systemClock });
  const keeping = new Proxy<ObjectStore>(objects, {
    get(target, name: keyof ObjectStore) {
      const value = target[name];
      if (name === "delete") {
        return () => Promise.reject(new ObjectStoreRefusedError("no delete"));
      }
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  assert.deepEqual(await probe(keeping, seededRandom(1)), {
    ok: true,
    keepsAll: "no delete",
  });
});
