/** The REST API: ours against the design of the system that it replaces. */
import { exchange, type Request } from "../http1.ts";
import { wrk } from "../load.ts";
import { inTurn, type Row } from "../row.ts";
import { hono, ours, REST_SECRET, type Server, start } from "../servers.ts";

const VALUE = "a".repeat(100);
const KEYS = 1000;

export const restRows: Row[] = [
  row("rest-get", "REST GET", 1.5, 2, [{
    method: "GET",
    path: "/k500",
    headers: {},
  }]),
  row(
    "rest-post",
    "REST POST",
    8,
    15,
    Array.from({ length: KEYS }, (_, i) => post(`/w${i}`)),
  ),
];

function post(path: string): Request {
  return {
    method: "POST",
    path,
    headers: { "authorization": REST_SECRET, "content-type": "text/plain" },
    body: new TextEncoder().encode(VALUE),
  };
}

function row(
  id: string,
  title: string,
  atLeast: number,
  aim: number,
  requests: readonly Request[],
): Row {
  return {
    id,
    title: `${title} against Hono on Deno.openKv, all cores`,
    unit: "/s",
    judged: "ratio",
    atLeast,
    aim,
    needs: ["wrk"],
    async measure({ folder, ...plan }) {
      await using a = await start(await ours({ folder: `${folder}/a` }));
      await using b = await start(await hono({ folder: `${folder}/b` }));
      for (const server of [a, b]) {
        for (let i = 0; i < KEYS; i++) {
          await exchange(server.url, post(`/k${i}`));
        }
      }
      const rate = (server: Server) => async (seconds: number) => {
        const load = await wrk({
          url: server.url,
          seconds,
          connections: 32,
          folder,
        }, requests);
        await expectStored(server, requests[0].path);
        return load.perSecond;
      };
      return await inTurn(plan, { ours: rate(a), peer: rate(b) });
    },
  };
}

async function expectStored(server: Server, path: string): Promise<void> {
  const { body } = await exchange(server.url, {
    method: "GET",
    path,
    headers: {},
  });
  if (new TextDecoder().decode(body) !== VALUE) {
    throw new Error(`${server.url.origin}${path} does not hold what was put.`);
  }
}
