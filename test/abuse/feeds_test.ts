/** Change feeds, many, slow and left, beside a client that wants an answer. */
import assert from "node:assert/strict";
import { until } from "../support/faulty_server.ts";
import { REST_SECRET } from "../support/server.ts";
import { Attack } from "./attack.ts";
import { fill, largeValues } from "./fill.ts";
import { attacked, CEILING_WITH_SECRET_MIB } from "./victim.ts";

const ceilingMib = CEILING_WITH_SECRET_MIB;
const headers = { authorization: REST_SECRET };
/** About as much as the log keeps. */
const prepare = (database: string) => fill(database, largeValues(1000));

const searching = "30 feeds over all of the log for keys that are not in it";
Deno.test(`${searching}: others get their answers in between`, () =>
  attacked({ name: searching, ceilingMib, prepare }, async (victim) => {
    const { server, neighbour } = victim;
    await using attack = await Attack.start("feedsAgain", server.port, {
      feeds: 30,
      query: "from=oldest&prefix=/nothing",
      headers,
    });
    await neighbour.goRounds(10);
    const { refused } = await attack.end();
    assert.equal(refused, 0);
  }));

const unread = "40 feeds over all of the log that nobody reads";
Deno.test(`${unread}: bounded memory, and all of it is given back`, () =>
  attacked({ name: unread, ceilingMib, prepare }, async (victim) => {
    const { server, neighbour } = victim;
    await using attack = await Attack.start("unreadFeeds", server.port, {
      feeds: 40,
      query: "from=oldest&follow=true",
      headers,
    });
    await neighbour.goRounds(20);
    assert.deepEqual(await attack.end(), { open: 32, refused: 8 });
    await noneIsLeft(server);
  }));

const left = "1,500 feeds that are left at once";
Deno.test(`${left}: none of them stays, and none holds the log`, () =>
  attacked({ name: left, ceilingMib, prepare }, async (victim) => {
    const { server, neighbour } = victim;
    await using attack = await Attack.start("feedChurn", server.port, {
      feeds: 30,
      rounds: 50,
      query: "from=oldest&follow=true",
      headers,
    });
    await neighbour.goRounds(10);
    assert.deepEqual(await attack.end(), { left: 1500 });
    await noneIsLeft(server);
  }));

async function noneIsLeft(
  server: { metrics(): Promise<Map<string, number>> },
): Promise<void> {
  await until("the end of all feeds", async () => {
    const metrics = await server.metrics();
    return metrics.get("denokv_change_feeds") === 0 &&
      metrics.get('denokv_in_flight_bytes{kind="changes"}') === 0 &&
      ![...metrics.keys()].some((name) => name.includes('reader="changes'));
  });
}
