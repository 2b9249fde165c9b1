/**
 * The rooms of src/ and whom each may import: the table that the rule
 * `house/layers` enforces. Nothing flows back up.
 */

/** From each room to the rooms that it may import, beside itself. */
export const ROOMS: Readonly<Record<string, readonly string[]>> = {
  common: [],
  protocol: ["common"],
  log: ["common", "protocol"],
  object_store: ["common"],
  store: ["common", "protocol", "log"],
  backup: ["common", "protocol", "log", "object_store", "store"],
  replica: ["common", "protocol", "log", "object_store", "store", "backup"],
  database: [
    "common",
    "protocol",
    "log",
    "object_store",
    "store",
    "backup",
    "replica",
  ],
  server: ["common", "protocol", "log", "store"],
  cli: [
    "common",
    "protocol",
    "log",
    "object_store",
    "store",
    "backup",
    "replica",
    "database",
    "server",
  ],
};

/** The program, and what starts it with its permissions. */
const DOORS: readonly string[] = ["main.ts", "denokv.ts"];

/**
 * Why the file `from` may not import the file `to`, in a sentence; undefined
 * where it may. Both are paths inside the repository, with forward slashes.
 */
export function importFault(from: string, to: string): string | undefined {
  const toRoom = roomOf(to);
  if (DOORS.includes(from)) {
    return toRoom === "cli" || DOORS.includes(to)
      ? undefined
      : `${from} is the door: it imports src/cli alone.`;
  }
  const fromRoom = roomOf(from);
  // Tests of no single room, benchmarks and tools stand above the house.
  if (fromRoom === undefined) return undefined;
  if (!Object.hasOwn(ROOMS, fromRoom)) {
    return `src/${fromRoom} is no room of the house: the rooms are ${
      Object.keys(ROOMS).join(", ")
    }.`;
  }
  if (toRoom === undefined) return outsideFault(from, fromRoom, to);
  if (!Object.hasOwn(ROOMS, toRoom)) {
    return `src/${toRoom} is no room of the house.`;
  }
  if (!isTest(from) && isTest(to)) {
    return `${to} is a test: only tests import it.`;
  }
  if (toRoom === fromRoom || ROOMS[fromRoom].includes(toRoom)) {
    return undefined;
  }
  const allowed = ROOMS[fromRoom];
  return `src/${fromRoom} may not import src/${toRoom}: it may import ${
    allowed.length === 0 ? "no other room" : allowed.join(", ")
  }.`;
}

export function isTest(path: string): boolean {
  return path.endsWith("_test.ts");
}

/** The first folder under src/, or undefined outside of it. */
function roomOf(path: string): string | undefined {
  return /^src\/([^/]+)/.exec(path)?.[1];
}

function outsideFault(
  from: string,
  room: string,
  to: string,
): string | undefined {
  // The version has one home.
  if (room === "cli" && to === "deno.json") return undefined;
  // A test may run the whole program and read the repository's own files.
  if (isTest(from)) return undefined;
  return `src/${room} may not import ${to}: what src/ needs is in src/.`;
}
