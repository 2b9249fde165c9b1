/** Floods of HTTP/2 frames: cheap to send, and to be cheap to receive. */
import { Attack } from "./attack.ts";
import { attacked, CEILING_WITHOUT_SECRET_MIB } from "./victim.ts";

type Start = (port: number) => Promise<Attack>;

const FLOODS: [name: string, start: Start][] = [
  [
    "20,000 streams opened and reset",
    (port) =>
      Attack.start("rapidReset", port, {
        connections: 10,
        streams: 2000,
        path: "/-/metrics",
      }),
  ],
  [
    "20,000 calls of the data path opened and reset",
    (port) =>
      Attack.start("rapidReset", port, {
        connections: 10,
        streams: 2000,
        path: "/v2/snapshot_read",
        headers: { authorization: "Bearer wrong" },
      }),
  ],
  ...(["settings", "ping", "emptyData", "priority", "windowUpdate"] as const)
    .map((kind): [string, Start] => [
      `200,000 ${kind} frames`,
      (port) =>
        Attack.start("frameFlood", port, {
          kind,
          connections: 5,
          frames: 40_000,
        }),
    ]),
  [
    "heads that go on for 24 MB in CONTINUATION frames",
    (port) =>
      Attack.start("continuationFlood", port, { connections: 5, frames: 2000 }),
  ],
  [
    "heads of 40 MB out of 14 KB",
    (port) =>
      Attack.start("headerBomb", port, { connections: 10, streams: 50 }),
  ],
  [
    "3,800 answers that may not be sent",
    (port) =>
      Attack.start("shutWindows", port, {
        connections: 20,
        streams: 190,
        window: 0,
        method: "GET",
        path: "/-/metrics",
      }),
  ],
  [
    "5,700 pages of metrics asked for at once",
    (port) =>
      Attack.start("shutWindows", port, {
        connections: 30,
        streams: 190,
        window: 65_535,
        method: "GET",
        path: "/-/metrics",
      }),
  ],
  [
    "3,800 answers in windows of one byte",
    (port) =>
      Attack.start("shutWindows", port, {
        connections: 20,
        streams: 190,
        window: 1,
        method: "GET",
        path: "/-/metrics",
      }),
  ],
];

for (const [name, start] of FLOODS) {
  Deno.test(`HTTP/2: ${name}`, () =>
    attacked(
      { name, ceilingMib: CEILING_WITHOUT_SECRET_MIB },
      async ({ server, neighbour }) => {
        await using attack = await start(server.port);
        await neighbour.goRounds(10);
        await attack.end();
      },
    ));
}
