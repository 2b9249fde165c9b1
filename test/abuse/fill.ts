/** Databases that attacks need, written without a server. */
import type { Mutation } from "../../src/protocol/messages.ts";
import { MAX_VALUE_BYTES } from "../../src/protocol/limits.ts";
import { atomic, committed, set } from "../../src/store/contract/support.ts";
import { openSqliteStore } from "../../src/store/sqlite/store.ts";

const MUTATIONS_PER_WRITE = 12;

export async function fill(
  database: string,
  mutations: readonly Mutation[],
): Promise<void> {
  const store = await openSqliteStore({ path: database });
  try {
    for (let at = 0; at < mutations.length; at += MUTATIONS_PER_WRITE) {
      const some = mutations.slice(at, at + MUTATIONS_PER_WRITE);
      committed(await store.write(atomic(some)));
    }
  } finally {
    await store.close();
  }
}

/** Values of the largest size, each of its own, under `large 0` and so on. */
export const largeValues = (count: number): Mutation[] =>
  Array.from(
    { length: count },
    (_, i) => set(largeName(i), `${i} `.padEnd(MAX_VALUE_BYTES, "x")),
  );

/** In the order of their numbers. */
export const largeName = (index: number) =>
  `large ${`${index}`.padStart(4, "0")}`;
