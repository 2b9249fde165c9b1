/**
 * The process of an attack: attacker.ts <name> <port> <settings as JSON>.
 * Prints a line when the attack is fully under way, goes on until its standard
 * input ends, and prints what it saw. It ends by itself with its parent, and
 * after `LONGEST_MS` whatever happens.
 */
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

const ATTACKS = { ...http1, ...http2, ...kv };
export type Attacks = typeof ATTACKS;
export type AttackName = keyof Attacks;

async function untilInputEnds(): Promise<void> {
  for await (const _ of Deno.stdin.readable);
}

if (import.meta.main) {
  setTimeout(() => Deno.exit(3), LONGEST_MS);
  const [name, port, settings] = Deno.args;
  const attack = ATTACKS[name as AttackName] as (
    context: AttackContext<unknown>,
  ) => Promise<Seen>;
  const seen = await attack({
    port: Number(port),
    settings: JSON.parse(settings),
    underWay: () => console.log("under way"),
    told: untilInputEnds(),
  });
  console.log(JSON.stringify(seen));
  Deno.exit(0);
}
