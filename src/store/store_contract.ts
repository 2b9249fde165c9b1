/**
 * The Store contract as a suite: whatever an engine does inside, it keeps the
 * promises of store.ts and the semantics of KV Connect. Each engine's own
 * tests call {@linkcode storeContract} with a way to make a place for it.
 */
import { promisesContract } from "./contract/promises.ts";
import { durabilityContract } from "./contract/durability.ts";
import { logContract } from "./contract/log.ts";
import { expiryContract } from "./contract/expiry.ts";
import { readsContract } from "./contract/reads.ts";
import { watchesContract } from "./contract/watches.ts";
import { writesContract } from "./contract/writes.ts";
import type { MakePlace } from "./contract/support.ts";

export type {
  MakePlace,
  StorePlace,
  StoreSettings,
} from "./contract/support.ts";

/**
 * @param name of the engine, which every test's name begins with
 * @param makePlace makes a fresh, empty place for one database
 */
export function storeContract(name: string, makePlace: MakePlace): void {
  durabilityContract(name, makePlace);
  promisesContract(name, makePlace);
  expiryContract(name, makePlace);
  logContract(name, makePlace);
  readsContract(name, makePlace);
  writesContract(name, makePlace);
  watchesContract(name, makePlace);
}
