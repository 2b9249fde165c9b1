/** Whether a point read takes longer when the database is larger. */
import { wrk } from "../load.ts";
import { inTurn, LOAD_CPU, type Row, SERVER_CPU } from "../row.ts";
import { ours, rust, type Starter } from "../servers.ts";
import { openSide, type Side } from "../side.ts";
import { randomPoints } from "../work.ts";

const FEW_KEYS = 10_000;

/** Requests that the load generator holds ready and sends in turn. */
const DRAWS = 100_000;

export const keyCountRow: Row = {
  id: "keys",
  title: "point-read latency, 10^6 against 10^4 keys",
  unit: "×",
  judged: "ours",
  atLeast: 1.3,
  aim: 1.1,
  needs: ["wrk", "taskset"],
  async measure({ folder, manyKeys, ...plan }) {
    const notes: string[] = [];
    const measured = async (starter: Starter, name: string) => {
      const cpu = SERVER_CPU;
      const open = (keys: number) =>
        openSide(starter, { folder: `${folder}/${name}${keys}`, cpu }, keys);
      await using many = await open(manyKeys);
      await using few = await open(FEW_KEYS);
      const meanUs = (side: Side, keys: number) => {
        const work = randomPoints(keys, DRAWS);
        return async (seconds: number) => {
          const load = await side.honest(work, (requests) =>
            wrk({
              url: side.client.url,
              seconds,
              // One at a time: its latency is the server's time, not a queue's.
              connections: 1,
              cpu: LOAD_CPU,
              folder,
            }, requests));
          return 1e6 / load.perSecond;
        };
      };
      const times = await inTurn(plan, {
        ours: meanUs(many, manyKeys),
        peer: meanUs(few, FEW_KEYS),
      });
      notes.push(
        `${name} ${mean(times.ours).toFixed(0)} against ${
          mean(times.peer).toFixed(0)
        } µs`,
      );
      return times.ours.map((us, round) => us / times.peer[round]);
    };
    return {
      ours: await measured(ours, "ours"),
      peer: await measured(rust, "peer"),
      note: notes.join("; "),
    };
  },
};

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
