/**
 * An attack in a process of its own, with the lowest priority, so that what it
 * does to its own side is not taken for what it does to the server.
 */
import { fileURLToPath } from "node:url";
import type { AttackName, Attacks, Seen } from "./attacker.ts";

const ATTACKER = fileURLToPath(new URL("./attacker.ts", import.meta.url));

export class Attack implements AsyncDisposable {
  private out = "";
  private onOut: () => void = () => {};
  private isTold = false;
  private readonly ended: Promise<void>;
  private readonly input: WritableStreamDefaultWriter<Uint8Array>;

  private constructor(
    private readonly name: string,
    private readonly child: Deno.ChildProcess,
  ) {
    this.input = child.stdin.getWriter();
    this.ended = this.read();
  }

  /** Resolves when the attack is fully under way. */
  static async start<Name extends AttackName>(
    name: Name,
    port: number,
    settings: Parameters<Attacks[Name]>[0]["settings"],
  ): Promise<Attack> {
    const child = new Deno.Command("nice", {
      args: [
        "-n",
        "19",
        Deno.execPath(),
        "run",
        "--quiet",
        "--no-prompt",
        "--no-check",
        "--cached-only",
        `--allow-net=127.0.0.1:${port}`,
        "--allow-read",
        "--allow-env",
        "--allow-sys",
        ATTACKER,
        name,
        `${port}`,
      ],
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    const attack = new Attack(name, child);
    await attack.input.write(
      new TextEncoder().encode(`${JSON.stringify(settings)}\n`),
    );
    while (!attack.out.includes("\n")) await attack.news();
    return attack;
  }

  private async read(): Promise<void> {
    const text = this.child.stdout.pipeThrough(new TextDecoderStream());
    for await (const chunk of text) {
      this.out += chunk;
      this.onOut();
    }
  }

  private async news(): Promise<void> {
    const more = new Promise<void>((resolve) => this.onOut = resolve);
    const early = this.ended.then(() => {
      throw new Error(`the attack ${this.name} broke off: ${this.out}`);
    });
    await Promise.race([more, early]);
  }

  /** Tells it to end, and waits; what it saw. */
  async end(): Promise<Seen> {
    this.isTold = true;
    await this.input.close();
    await this.ended;
    const { code } = await this.child.status;
    const last = this.out.trimEnd().split("\n").at(-1)!;
    if (code !== 0) throw new Error(`the attack ${this.name} failed: ${last}`);
    return JSON.parse(last);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.isTold) return;
    this.child.kill("SIGKILL");
    await this.input.abort();
    await this.ended;
    await this.child.status;
  }
}
