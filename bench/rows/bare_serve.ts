/**
 * How much of what the runtime's own HTTP server can do is left after the
 * database has had its part.
 */
import { wrk } from "../load.ts";
import { inTurn, LOAD_CPU, type Row, SERVER_CPU } from "../row.ts";
import { bare, ours, start } from "../servers.ts";
import { openSide } from "../side.ts";
import { pointRead } from "../work.ts";

export const bareServeRow: Row = {
  id: "bare",
  title: "point read against a bare Deno.serve, one core",
  unit: "/s",
  judged: "ratio",
  atLeast: 0.5,
  aim: 0.7,
  needs: ["wrk", "taskset"],
  async measure({ folder, ...plan }) {
    const cpu = SERVER_CPU;
    await using a = await openSide(ours, { folder: `${folder}/a`, cpu });
    const requests = a.requests(pointRead);
    const answer = await a.client.send(requests[0]);
    await using b = await start(await bare(answer.length)({ folder, cpu }));
    const options = { connections: 32, cpu: LOAD_CPU, folder };
    return await inTurn(plan, {
      async ours(seconds) {
        const url = a.client.url;
        const load = await a.honest(
          pointRead,
          () => wrk({ ...options, url, seconds }, requests),
        );
        return load.perSecond;
      },
      async peer(seconds) {
        const load = await wrk({ ...options, url: b.url, seconds }, requests);
        return load.perSecond;
      },
    });
  },
};
