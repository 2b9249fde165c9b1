/**
 * The change feed: how fast one consumer catches up, and what one that follows
 * costs the writes of a server with a core to itself.
 */
import { wrk } from "../load.ts";
import { inTurn, LOAD_CPU, type Plan, type Row, SERVER_CPU } from "../row.ts";
import { ACCESS_TOKEN, ours } from "../servers.ts";
import { openSide, type Side } from "../side.ts";
import { durableWrite } from "../work.ts";

const CONNECTIONS = 64;
/** What is caught up with: below the 64 MiB that the log keeps. */
const MUTATIONS = 200_000;
const NEWLINE = 0x0a;

export const changesRows: Row[] = [
  {
    id: "changes",
    title: "change feed, catching up, mutations (peer: as events)",
    unit: "/s",
    judged: "oursAtLeast",
    atLeast: 50_000,
    aim: 100_000,
    needs: [],
    async measure({ folder, ...plan }) {
      await using side = await openSide(ours, { folder }, MUTATIONS);
      const rate = (accept: string, linesEach: number) => async () => {
        const startedMs = performance.now();
        const answer = await feed(side, "from=oldest&follow=false", accept);
        let lines = 0;
        for await (const chunk of answer.body!) lines += linesIn(chunk);
        const count = Math.floor(lines / linesEach);
        if (count < MUTATIONS) throw new Error(`${count} mutations came`);
        return MUTATIONS / (performance.now() - startedMs) * 1000;
      };
      return await inTurn(plan, {
        ours: rate("application/x-ndjson", 1),
        // Data and an empty line; a commit's last one has its id as well.
        peer: rate("text/event-stream", 2),
      });
    },
  },
  {
    id: "changes-writes",
    title: "durable write with a change feed against without, one core",
    unit: "/s",
    judged: "ratio",
    atLeast: 0.9,
    aim: 0.95,
    needs: ["wrk", "taskset"],
    async measure({ folder, ...plan }) {
      await using followed = await openSide(ours, {
        folder: `${folder}/a`,
        cpu: SERVER_CPU,
      });
      await using alone = await openSide(ours, {
        folder: `${folder}/b`,
        cpu: SERVER_CPU,
      });
      await using consumer = await Consumer.open(followed);
      let seconds = 0;
      const sides = await inTurn(plan, {
        ours: (each) => {
          seconds += each;
          return writes(followed, each, folder);
        },
        peer: (each) => writes(alone, each, folder),
      });
      const perSecond = Math.round(consumer.lines / seconds);
      return { ...sides, note: `${perSecond} mutations/s came` };
    },
  },
];

/** Follows from its opening to its end, and counts what comes. */
class Consumer implements AsyncDisposable {
  lines = 0;
  private readonly reading: Promise<void>;

  private constructor(
    private readonly reader: ReadableStreamDefaultReader<Uint8Array>,
  ) {
    this.reading = this.read();
  }

  static async open(side: Side): Promise<Consumer> {
    const answer = await feed(side, "follow=true", "application/x-ndjson");
    return new Consumer(answer.body!.getReader());
  }

  private async read(): Promise<void> {
    for (let part; !(part = await this.reader.read()).done;) {
      this.lines += linesIn(part.value);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.reader.cancel();
    await this.reading;
  }
}

async function feed(
  side: Side,
  query: string,
  accept: string,
): Promise<Response> {
  const answer = await fetch(new URL(`/-/changes?${query}`, side.client.url), {
    headers: { authorization: `Bearer ${ACCESS_TOKEN}`, accept },
  });
  if (answer.status !== 200) throw new Error(await answer.text());
  return answer;
}

function linesIn(chunk: Uint8Array): number {
  let lines = 0;
  for (let at = -1; (at = chunk.indexOf(NEWLINE, at + 1)) >= 0;) lines++;
  return lines;
}

async function writes(
  side: Side,
  seconds: number,
  folder: Plan["folder"],
): Promise<number> {
  const load = await side.honest(durableWrite, (requests) =>
    wrk({
      url: side.client.url,
      seconds,
      connections: CONNECTIONS,
      folder,
      // The consumer is on this core too: it is elsewhere in life.
      cpu: LOAD_CPU,
    }, requests));
  return load.perSecond;
}
