/**
 * A server under attack, and what is asserted of it, whatever the attack is:
 *
 * - it lives, and stops in order afterwards;
 * - a well-behaved client next to the attack gets every answer, and none
 *   slower than `STALL_MS`;
 * - its resident memory stays below a ceiling.
 *
 * The aim is 250 ms beside any attack; what was seen is printed. Asserted is
 * a bound that a busy machine with two cores keeps and that no stalled server
 * does: the attackers run beside the server on the same cores.
 */
import assert from "node:assert/strict";
import {
  ServerProcess,
  type ServerSettings,
  testCount,
  TestFolder,
} from "../support/server.ts";
import { HARD_STOP_MIB, MemoryWatch } from "./memory.ts";
import { Neighbour } from "./neighbour.ts";

/** DENOKV_TEST_STALL_MS sets another one, such as the aim. */
export const STALL_MS = 2000;
export const AIM_MS = 250;
/** Resident, whatever is sent without a secret. */
export const CEILING_WITHOUT_SECRET_MIB = 400;
/** Resident, whatever is sent with one, under the default budgets. */
export const CEILING_WITH_SECRET_MIB = 500;
/** Of the log, whatever is sent: who can fill it, fills the disk. */
const MAX_LOGGED_LINES = 200;

export interface AttackedSettings extends Omit<ServerSettings, "path"> {
  /** In the test's title, so that a printed line can be found. */
  name: string;
  ceilingMib: number;
  readsOnly?: boolean;
  /** Made before anything is measured; `database` is not open yet. */
  prepare?(database: string): void | Promise<void>;
  /** Faults of the disk, set up before the server starts. */
  env?: Record<string, string>;
  folder?: TestFolder;
}

export interface Victim {
  server: ServerProcess;
  neighbour: Neighbour;
}

/** Runs the attack beside a well-behaved client, and judges the server. */
export async function attacked(
  settings: AttackedSettings,
  attack: (victim: Victim) => Promise<void>,
): Promise<void> {
  await using own = settings.folder === undefined
    ? await TestFolder.make()
    : undefined;
  const path = (settings.folder ?? own!).database;
  await settings.prepare?.(path);
  await using server = await ServerProcess.start({ ...settings, path });
  await using memory = MemoryWatch.start(server.pid);
  const neighbour = await Neighbour.open({
    url: server.url,
    readsOnly: settings.readsOnly,
  });
  const faults: string[] = [];
  const loggedBefore = server.loggedLines;
  try {
    await neighbour.goRounds(5);
    await attack({ server, neighbour });
    await neighbour.goRounds(5);
  } catch (error) {
    faults.push(error instanceof Error ? error.message : `${error}`);
  }
  await neighbour.stop();
  const { worst, requests } = neighbour;
  const peakMib = memory?.peakMib ?? 0;
  console.log(
    `${settings.name}: worst ${Math.round(worst.ms)} ms (${worst.what}) of ` +
      `${requests} requests beside it, aim ${AIM_MS}; peak ` +
      `${Math.round(peakMib)} MiB, ceiling ${settings.ceilingMib}`,
  );
  if (memory?.hasKilled) {
    faults.push(`it was killed at ${HARD_STOP_MIB} MiB`);
  } else if (!server.isRunning) {
    faults.push(`it ended by itself: ${server.lastWords}`);
  }
  faults.push(...neighbour.failures);
  const stallMs = testCount("DENOKV_TEST_STALL_MS", STALL_MS);
  if (worst.ms > stallMs) {
    faults.push(`${worst.what} took ${Math.round(worst.ms)} ms`);
  }
  const logged = server.loggedLines - loggedBefore;
  if (logged > MAX_LOGGED_LINES) faults.push(`it logged ${logged} lines`);
  if (peakMib > settings.ceilingMib) {
    faults.push(`it took ${Math.round(peakMib)} MiB`);
  }
  assert.deepEqual(faults, []);
  assert.equal((await server.stop()).code, 0, server.lastWords);
}
