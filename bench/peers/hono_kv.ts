/**
 * The design of the system that this server replaces: a Hono app on
 * `Deno.openKv(file)` with the same REST calls. Configured by the environment
 * alone: PORT, KVSTORE_SECRET, KVSTORE_PATH.
 */
import { Hono } from "hono";

const secret = Deno.env.get("KVSTORE_SECRET");
const kv = await Deno.openKv(Deno.env.get("KVSTORE_PATH"));
const app = new Hono();

app.get("/:key", async (c) => {
  const { value } = await kv.get<string>([c.req.param("key")]);
  return value === null ? c.notFound() : c.text(value);
});

app.post("/:key", async (c) => {
  if (c.req.header("authorization") !== secret) {
    return c.text("Unauthorized", 401);
  }
  const result = await kv.set([c.req.param("key")], await c.req.text());
  return c.json({ ok: result.ok, versionstamp: result.versionstamp });
});

Deno.serve(
  {
    hostname: "127.0.0.1",
    port: Number(Deno.env.get("PORT")),
    onListen() {},
  },
  app.fetch,
);
