/** The same with npm `@deno/kv`: <package folder> <url> <consistency>. */
import { createRequire } from "node:module";
import process from "node:process";

const [folder, url, consistency] = process.argv.slice(2);
const { openKv } = createRequire(`${folder}/`)("@deno/kv");
const kv = await openKv(url);
const { value } = await kv.get(["a"], { consistency });
console.log(JSON.stringify({ value }));
kv.close();
