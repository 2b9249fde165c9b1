/** A folder of its own for one database: where tests of this engine run. */
import type { StorePlace } from "../store_contract.ts";
import { openSqliteStore } from "./store.ts";

export async function makeSqlitePlace(): Promise<StorePlace> {
  const folder = await Deno.makeTempDir({ prefix: "denokv-test-" });
  return {
    open: (settings) =>
      openSqliteStore({ ...settings, path: `${folder}/denokv.sqlite` }),
    remove: () => Deno.remove(folder, { recursive: true }),
  };
}
