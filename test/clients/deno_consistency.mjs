/** One read of the stock Deno client, at a consistency: <url> <consistency>. */
const [url, consistency] = Deno.args;
const kv = await Deno.openKv(url);
const { value } = await kv.get(["a"], { consistency });
console.log(JSON.stringify({ value }));
kv.close();
