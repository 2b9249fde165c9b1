/**
 * What each command needs the runtime to allow: one table, and out of it and
 * the settings the exact permissions of one run. A command that is missing in
 * the table is a type error.
 */
import { dirname, resolve } from "node:path";
import {
  hostOf,
  type Permissions,
  permissions,
  type Surroundings,
  together,
} from "../common/permission_list.ts";
import { placePermissions } from "../object_store/place_permissions.ts";
import { databaseFile } from "../store/sqlite/database_file.ts";
import { type Address, formatAddress } from "./address.ts";
import { addressOf, askedAddress, placeOf, type Settings } from "./config.ts";
import {
  type CommandName,
  environmentOf,
  OPTION_LIST,
  type OptionValues,
} from "./options.ts";

interface CommandNeeds {
  /** Serves at its address, and says where. */
  listens?: true;
  /** Asks a server of this machine. */
  asks?: true;
  /** The folder of the database: what is put beside it is in there too. */
  database?: "read" | "write";
  place?: "read" | "write" | ((values: OptionValues) => "read" | "write");
  /** Restores into a scratch folder: that for temporary files, if none is named. */
  scratch?: true;
}

const COMMAND_NEEDS: Readonly<Record<CommandName, CommandNeeds>> = {
  start: { listens: true, database: "write" },
  serve: {
    listens: true,
    database: "write",
    // With --backup a replica may become the owner.
    place: ({ syncFromS3, replicaFrom, replicaOf, backup }) =>
      backup === undefined &&
        (syncFromS3 || (replicaFrom ?? replicaOf) !== undefined)
        ? "read"
        : "write",
  },
  // It lists the files that were set aside beside the database.
  "backup status": { asks: true, database: "read", place: "read" },
  "backup list": { place: "read" },
  // It notes in the backup that it was verified.
  "backup verify": {
    asks: true,
    database: "read",
    place: "write",
    scratch: true,
  },
  "backup snapshot": { asks: true },
  "backup repair": { place: "write" },
  "backup rewind": { place: "write", scratch: true },
  "backup branches": {
    place: ({ removeBranch }) => removeBranch === undefined ? "read" : "write",
  },
  "pitr sync": { database: "write", place: "read" },
  "pitr list": { database: "read" },
  "pitr info": { database: "read" },
  "pitr checkout": { database: "write" },
  // A leap of versions is noted in the backup.
  restore: { place: ({ sameDatabase }) => sameDatabase ? "write" : "read" },
  promote: { asks: true },
  changes: { asks: true },
  health: { asks: true },
};

/** @throws UsageError where a setting is none */
export function commandPermissions(
  command: CommandName,
  settings: Settings,
  around: Surroundings,
): Permissions {
  const { values } = settings;
  const needs = COMMAND_NEEDS[command];
  const all = [permissions({ env: environmentOf(command) })];
  const {
    sqlitePath,
    accessTokenFile,
    addressFile,
    output,
    resumeFile,
    replicaOf,
  } = values;
  const files = (access: "read" | "write", paths: string[]) =>
    permissions({ read: paths, write: access === "write" ? paths : [] });
  if (needs.listens) {
    all.push(permissions({
      net: [listening(addressOf(settings))],
      write: addressFile === undefined ? [] : [addressFile],
    }));
  }
  if (needs.asks) {
    all.push(permissions({
      net: values.url === undefined
        ? [formatAddress(askedAddress(settings))]
        : hostOf(values.url),
      read: addressFile === undefined || values.url !== undefined
        ? []
        : [addressFile],
    }));
  }
  if (needs.database !== undefined && sqlitePath !== undefined) {
    all.push(files(needs.database, foldersOf(sqlitePath, around)));
  }
  if (resumeFile !== undefined) {
    all.push(files("write", [dirname(resumeFile)]));
  }
  if (replicaOf !== undefined && URL.canParse(replicaOf)) {
    all.push(permissions({ net: [hostAndPort(new URL(replicaOf))] }));
  }
  if (output !== undefined) all.push(files("write", [dirname(output)]));
  if (accessTokenFile !== undefined) {
    all.push(files("read", [accessTokenFile]));
  }
  // `backup snapshot` takes the options of a place, and asks the server alone.
  const place = needs.place === undefined ? undefined : placeOf(values);
  if (needs.place !== undefined && place !== undefined) {
    const access = typeof needs.place === "function"
      ? needs.place(values)
      : needs.place;
    all.push(placePermissions(place, access, around));
    // By the machine's start an owner knows that its killed launch is gone.
    if (needs.listens && access === "write") {
      all.push(permissions({ sys: ["osUptime"] }));
    }
  }
  if (needs.scratch) {
    const folder = values.scratchFolder ?? temporaryFolder(around);
    all.push(files("write", [folder]));
  }
  return together(all);
}

function hostAndPort({ hostname, port, protocol }: URL): string {
  return `${hostname}:${port || (protocol === "https:" ? 443 : 80)}`;
}

/** For a command line with a mistake: the mistake may be in a variable. */
export function permissionsToTellMistakes(): Permissions {
  return permissions({
    env: OPTION_LIST.flatMap(([, { env }]) => env === undefined ? [] : [env]),
  });
}

/** Whoever takes any free port needs the right to take that one again. */
function listening(address: Address): string {
  const text = formatAddress(address);
  return address.port === 0 ? text.slice(0, text.lastIndexOf(":")) : text;
}

/** Of the path, and of the file that it leads to. */
function foldersOf(path: string, around: Surroundings): string[] {
  const folders = [dirname(path)];
  try {
    folders.push(dirname(databaseFile(path)));
  } catch {
    // The command says what is wrong with it.
  }
  return folders.flatMap((folder) => bothNames(folder, around));
}

/** A lock in a folder behind a link is opened by the folder's real name. */
function bothNames(folder: string, around: Surroundings): string[] {
  const real = around.realPath(folder);
  // An absolute name of the same folder is no other one.
  return real === resolve(folder) ? [folder] : [folder, real];
}

/** Where the runtime makes temporary folders. */
function temporaryFolder(around: Surroundings): string {
  const names = Deno.build.os === "windows" ? ["TMP", "TEMP"] : ["TMPDIR"];
  return names.map(around.env).find(Boolean) ?? "/tmp";
}
