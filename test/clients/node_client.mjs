/**
 * npm `@deno/kv` in Node: node node_client.mjs <package folder> <url> <do>
 * <name>. The access token comes in DENO_KV_ACCESS_TOKEN.
 */
import { createRequire } from "node:module";
import process from "node:process";
import { act } from "./act.mjs";

const [folder, url, ...rest] = process.argv.slice(2);
const { openKv, KvU64 } = createRequire(`${folder}/`)("@deno/kv");
// Node 20 has no Array.fromAsync.
Array.fromAsync ??= async (iterable) => {
  const out = [];
  for await (const each of iterable) out.push(each);
  return out;
};
const kv = await openKv(url);
await act(kv, KvU64, rest);
kv.close();
