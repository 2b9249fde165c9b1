/**
 * The command line from its arguments to its exit code: 0 done, 1 could not
 * start or go on, 2 used wrongly, 3 handed over to another instance, 4 fenced
 * by one; commands that have more of them say so in their help. Every failure is
 * one sentence on standard error; a stack trace never reaches a person.
 */
import { systemClock } from "../common/clock.ts";
import {
  messageOf,
  StartupError,
  UnavailableError,
  UsageError,
} from "../common/errors.ts";
import {
  backupConfig,
  branchesConfig,
  changesConfig,
  healthConfig,
  listConfig,
  pitrCheckoutConfig,
  pitrConfig,
  pitrListConfig,
  pitrSyncConfig,
  promoteConfig,
  repairConfig,
  restoreConfig,
  rewindConfig,
  type ServeConfig,
  serveConfig,
  snapshotConfig,
  startConfig,
} from "./config.ts";
import { missingPermission } from "../common/permissions.ts";
import type { LogFormat } from "../common/log.ts";
import { type CliIo, say, wantedLogFormat } from "./io.ts";
import type { OptionValues } from "./options.ts";
import { writeAddressFile } from "./address_file.ts";
import { hiddenVariables } from "./starting.ts";
import { type Invocation, parseCommandLine, type ReadEnv } from "./parse.ts";

/** What is loaded only when it is asked for. */
export interface Commands {
  serve(config: ServeConfig, io: CliIo): Promise<number>;
}

/** @returns the exit code */
export async function runCli(
  args: readonly string[],
  env: ReadEnv,
  io: CliIo,
  commands: Commands,
): Promise<number> {
  let invocation: Invocation | undefined;
  try {
    invocation = parseCommandLine(args, env);
    if (invocation.kind === "run") {
      io.logFormat = invocation.values.logFormat as LogFormat | undefined;
    }
    return await run(invocation, io, commands);
  } catch (error) {
    io.logFormat ??= wantedLogFormat(args, env);
    say(io, "error", sentence(error));
    if (!(error instanceof UsageError)) return 1;
    if (io.logFormat === "json") return 2;
    const topic = invocation?.kind === "run" ? ` ${invocation.command}` : "";
    io.err("");
    io.err(`For more information, try 'denokv${topic} --help'.`);
    return 2;
  }
}

async function run(
  invocation: Invocation,
  io: CliIo,
  commands: Commands,
): Promise<number> {
  if (invocation.kind === "version") {
    const { VERSION } = await import("./version.ts");
    io.out(`denokv ${VERSION}`);
    return 0;
  }
  if (invocation.kind === "help") {
    const { helpFor } = await import("./help.ts");
    (invocation.asked ? io.out : io.err)(helpFor(invocation.command));
    return invocation.asked ? 0 : 2;
  }
  if (invocation.values.printPermissions) {
    throw new UsageError(
      "--print-permissions is an option of the launcher: run denokv.ts with it, not main.ts.",
    );
  }
  switch (invocation.command) {
    case "serve": {
      const config = serveConfig(invocation);
      const hidden = hiddenVariables(invocation, io.isHidden ?? (() => false));
      return await commands.serve(
        { ...config, hiddenVariables: hidden },
        announcing(invocation.values, io),
      );
    }
    case "start": {
      const { start } = await import("./start.ts");
      const { serve } = startConfig(invocation);
      const hidden = hiddenVariables(invocation, io.isHidden ?? (() => false));
      const config = { serve: { ...serve, hiddenVariables: hidden } };
      const announced = announcing(invocation.values, io);
      return await start(config, announced, commands.serve);
    }
    case "backup status": {
      const { backupStatus } = await import("./backup_status.ts");
      return await backupStatus(backupConfig(invocation), io);
    }
    case "backup list": {
      const { backupList } = await import("./backup_list.ts");
      return await backupList(listConfig(invocation), io);
    }
    case "backup verify": {
      const { backupVerify } = await import("./backup.ts");
      return await backupVerify(backupConfig(invocation), io);
    }
    case "backup repair": {
      const { backupRepair } = await import("./backup_repair.ts");
      return await backupRepair(repairConfig(invocation), io);
    }
    case "backup rewind": {
      const { backupRewind } = await import("./backup_rewind.ts");
      return await backupRewind(rewindConfig(invocation), io);
    }
    case "backup branches": {
      const { backupBranches } = await import("./backup_branches.ts");
      return await backupBranches(branchesConfig(invocation), io);
    }
    case "backup snapshot": {
      const { backupSnapshot } = await import("./backup.ts");
      return await backupSnapshot(snapshotConfig(invocation), io);
    }
    case "pitr sync": {
      const { pitrSync } = await import("./pitr_sync.ts");
      return await pitrSync(pitrSyncConfig(invocation), io);
    }
    case "pitr list": {
      const { pitrList } = await import("./pitr_list.ts");
      const { writeOutput } = await import("./standard_output.ts");
      return await pitrList(pitrListConfig(invocation), writeOutput);
    }
    case "pitr info": {
      const { pitrInfo } = await import("./pitr.ts");
      return pitrInfo(pitrConfig(invocation), io);
    }
    case "pitr checkout": {
      const { pitrCheckout } = await import("./pitr.ts");
      return await pitrCheckout(pitrCheckoutConfig(invocation), io);
    }
    case "restore": {
      const { restoreCommand } = await import("./restore.ts");
      return await restoreCommand(restoreConfig(invocation), io);
    }
    case "promote": {
      const { promote } = await import("./promote.ts");
      return await promote(promoteConfig(invocation), io);
    }
    case "changes": {
      const { changes } = await import("./changes.ts");
      const { untilSignal } = await import("./until_signal.ts");
      const { writeOutput } = await import("./standard_output.ts");
      return await changes(changesConfig(invocation), io, {
        write: writeOutput,
        signal: untilSignal(),
        clock: systemClock,
      });
    }
    case "health": {
      const { health } = await import("./health.ts");
      return await health(healthConfig(invocation), io);
    }
  }
}

/** Beside what it does already: the address goes where others look for it. */
function announcing({ addressFile }: OptionValues, io: CliIo): CliIo {
  if (addressFile === undefined) return io;
  return {
    ...io,
    onBound(url) {
      const why = writeAddressFile(addressFile, url);
      if (why !== undefined) {
        say(
          io,
          "warning",
          `the address of this server could not be written to ${addressFile}: ${why} It serves all the same; commands that read that file do not find it.`,
        );
      }
      io.onBound?.(url);
    },
  };
}

/** What a person reads of any error: one line. */
export function sentence(error: unknown): string {
  const missing = missingPermission(error);
  if (missing !== undefined) return missing;
  const text = messageOf(error).replace(/\s*\p{Cc}+\s*/gu, " ").trim();
  const isForeseen = error instanceof UsageError ||
    error instanceof StartupError || error instanceof UnavailableError;
  return isForeseen ? text : `Unexpected, and the command stopped: ${text}`;
}
