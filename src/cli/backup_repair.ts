/** `backup repair`: shows what is wrong and what can be done, asks, does it. */
import { systemClock } from "../common/clock.ts";
import { StartupError } from "../common/errors.ts";
import { systemRandom } from "../common/random.ts";
import { hexVersion } from "../backup/manifest.ts";
import { carryOutRepair, planRepair } from "../backup/repair.ts";
import type { RepairPlan } from "../backup/repair_plan.ts";
import { isWanted } from "./agreement.ts";
import { withBackupPlace } from "./backup_place.ts";
import type { RepairConfig } from "./config.ts";
import type { CliIo } from "./io.ts";

/** @returns the exit code: 0 where the backup can be used now */
export function backupRepair(
  config: RepairConfig,
  io: CliIo,
): Promise<number> {
  return withBackupPlace(config.place, async (objects) => {
    const { url } = objects;
    const plan = await planRepair(objects, systemClock);
    if (plan === undefined) {
      if (config.json) {
        io.out(JSON.stringify({ url, problem: null, written: false }));
      } else {
        io.out(
          `Nothing to repair: the manifest of ${url} can be read, no copy is newer, its present snapshot is whole, and no segment is missing. Whether every other object is as it was written is what \`backup verify\` finds out.`,
        );
      }
      return 0;
    }
    const written = async () =>
      await carryOutRepair(objects, plan, systemClock, systemRandom);
    if (config.json) {
      const isWritten = isWanted("", config, io) && await written();
      io.out(JSON.stringify({ url, ...asJson(plan), written: isWritten }));
      return isWritten ? 0 : 1;
    }
    for (const line of linesOf(plan, url)) io.out(line);
    if (
      !isWanted("Write this manifest? No server may run on it.", config, io)
    ) {
      io.out("Nothing was changed.");
      return 1;
    }
    if (!await written()) {
      throw new StartupError(
        "The manifest was changed by somebody else at the same moment. Nothing was written by this; stop every server on the backup, and look again.",
      );
    }
    io.out(
      `Repaired. The next start goes on from ${
        hexVersion(plan.newestVersion)
      }, and its versionstamps are above ${
        hexVersion(plan.manifest.leapVersion)
      }. Make sure of it with \`backup verify\`.`,
    );
    return 0;
  });
}

function asJson({ problem, manifest, copy, leftOut, ...rest }: RepairPlan) {
  const { lost } = rest;
  return {
    problem,
    databaseId: manifest.databaseId,
    copy,
    generations: manifest.generations.map(({ name }) => name),
    newest: hexVersion(rest.newestVersion),
    leftOut,
    lost: lost && {
      after: hexVersion(lost.afterVersion),
      until: hexVersion(lost.untilVersion),
    },
  };
}

function linesOf(plan: RepairPlan, url: string): string[] {
  const { manifest, copy, leftOut, lost } = plan;
  const line = (name: string, text: string) => `  ${name.padEnd(14)} ${text}`;
  return [
    `${url}: ${plan.problem}`,
    line("database", manifest.databaseId),
    ...(copy ? [line("made from", copy)] : []),
    ...manifest.generations.map(({ name }) => line("generation", name)),
    line("versionstamp", `${hexVersion(plan.newestVersion)} is the newest`),
    ...leftOut.map(({ name, why }) => line("left out", `${name}: ${why}`)),
    ...(lost
      ? [
        line(
          "given up",
          `what was written after ${hexVersion(lost.afterVersion)}, up to ${
            hexVersion(lost.untilVersion)
          } or later; a database file that still has it is used at the next start on its machine`,
        ),
      ]
      : []),
  ];
}
