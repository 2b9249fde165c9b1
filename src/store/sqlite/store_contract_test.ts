import { storeContract } from "../store_contract.ts";
import { makeSqlitePlace } from "./place.ts";

storeContract("sqlite", makeSqlitePlace);
