/**
 * The resident memory of a process, as Linux counts it. The watcher is a
 * process of its own, so that it also ends a victim that eats the machine
 * while this process cannot run.
 */

/** Past this the victim is killed at once, and the test has failed. */
export const HARD_STOP_MIB = 2048;

const LOOK_EVERY_SECONDS = "0.05";

/** Only what every shell has in itself; ends with the process it looks at. */
const WATCHER = `
look() {
  rss=
  while read -r name value unit; do
    case $name in VmHWM:) peak=$value ;; VmRSS:) rss=$value ;; esac
  done <"/proc/$1/status"
  [ -n "$rss" ]
}
while look "$1"; do
  echo "$rss $peak"
  if [ "$rss" -gt "$2" ]; then kill -9 "$1"; fi
  sleep ${LOOK_EVERY_SECONDS}
done`;

export class MemoryWatch implements AsyncDisposable {
  private rssKib = 0;
  private peakKib = 0;
  private readonly ended: Promise<unknown>;

  private constructor(private readonly child: Deno.ChildProcess) {
    this.ended = this.read();
  }

  /** Undefined where the system has no /proc. */
  static start(pid: number): MemoryWatch | undefined {
    if (Deno.build.os !== "linux") {
      console.log("SKIPPED: memory is measured on Linux only.");
      return undefined;
    }
    return new MemoryWatch(
      new Deno.Command("sh", {
        args: ["-c", WATCHER, "sh", `${pid}`, `${HARD_STOP_MIB * 1024}`],
        stdin: "null",
        stdout: "piped",
        stderr: "null",
      }).spawn(),
    );
  }

  private async read(): Promise<void> {
    let text = "";
    const chunks = this.child.stdout.pipeThrough(new TextDecoderStream());
    for await (const chunk of chunks) {
      const lines = (text + chunk).split("\n");
      text = lines.pop()!;
      const last = lines.at(-1);
      if (last === undefined) continue;
      const [rss, peak] = last.split(" ").map(Number);
      this.rssKib = rss;
      this.peakKib = Math.max(this.peakKib, peak, rss);
    }
    await this.child.status;
  }

  get rssMib(): number {
    return this.rssKib / 1024;
  }

  /** The highest ever, also between two looks. */
  get peakMib(): number {
    return this.peakKib / 1024;
  }

  get hasKilled(): boolean {
    return this.rssMib > HARD_STOP_MIB;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.child.kill();
    } catch {
      // It has ended with its victim.
    }
    await this.ended;
  }
}
