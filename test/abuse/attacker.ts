/**
 * The process of an attack: attacker.ts <name> <port>, and its settings as a
 * line of JSON on its standard input. It prints a line when the attack is
 * fully under way, goes on until its input ends, and prints what it saw. It
 * ends by itself with its parent, and after `LONGEST_MS` whatever happens.
 */
import * as changes from "./attacks/changes.ts";
import * as http1 from "./attacks/http1.ts";
import * as http2 from "./attacks/http2.ts";
import * as kv from "./attacks/kv.ts";

const LONGEST_MS = 90_000;

export type Seen = Record<string, number>;

export interface AttackContext<Settings> {
  port: number;
  settings: Settings;
  /** Everything that the attack consists of has been sent or opened. */
  underWay(): void;
  /** Resolves when it is to end. */
  told: Promise<void>;
}

const ATTACKS = { ...changes, ...http1, ...http2, ...kv };
export type Attacks = typeof ATTACKS;
export type AttackName = keyof Attacks;

/** The first line of the input, and its end. */
async function readInput(): Promise<{ line: string; end: Promise<void> }> {
  const reader = Deno.stdin.readable.pipeThrough(new TextDecoderStream())
    .getReader();
  let line = "";
  while (!line.includes("\n")) line += (await reader.read()).value ?? "\n";
  const untilEnd = async () => {
    while (!(await reader.read()).done);
  };
  return { line, end: untilEnd() };
}

if (import.meta.main) {
  setTimeout(() => Deno.exit(3), LONGEST_MS);
  const [name, port] = Deno.args;
  const { line, end } = await readInput();
  const attack = ATTACKS[name as AttackName] as (
    context: AttackContext<unknown>,
  ) => Promise<Seen>;
  const seen = await attack({
    port: Number(port),
    settings: JSON.parse(line),
    underWay: () => console.log("under way"),
    told: end,
  });
  console.log(JSON.stringify(seen));
  Deno.exit(0);
}
