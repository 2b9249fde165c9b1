/**
 * The stock Deno client: deno run … deno_client.mjs <url> <do> <name>. The
 * access token comes in DENO_KV_ACCESS_TOKEN, as for everybody.
 */
import { act } from "./act.mjs";

const [url, ...rest] = Deno.args;
const kv = await Deno.openKv(url);
await act(kv, Deno.KvU64, rest);
kv.close();
