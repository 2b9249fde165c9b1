/** What the numbers were measured on, so that nobody compares machines. */

export interface Machine {
  cpu: string;
  cores: number;
  memoryGb: number;
  kernel: string;
  deno: string;
  /** Median time of a 4 KiB append made durable, on the disk that is used. */
  fsyncMs: number;
}

export async function describeMachine(folder: string): Promise<Machine> {
  // Read with `cat`: Deno gives /proc to those with every permission only.
  const { stdout } = await new Deno.Command("cat", { args: ["/proc/cpuinfo"] })
    .output();
  const model = /model name\s*: (.*)/.exec(new TextDecoder().decode(stdout));
  return {
    cpu: model?.[1].trim() ?? Deno.build.arch,
    cores: navigator.hardwareConcurrency,
    memoryGb: Math.round(Deno.systemMemoryInfo().total / 1e9),
    kernel: Deno.osRelease(),
    deno: Deno.version.deno,
    fsyncMs: await fsyncMs(folder),
  };
}

async function fsyncMs(folder: string): Promise<number> {
  const path = `${folder}/fsync`;
  using file = await Deno.open(path, { create: true, write: true });
  const times: number[] = [];
  const page = new Uint8Array(4096);
  for (let i = 0; i < 200; i++) {
    const start = performance.now();
    file.writeSync(page);
    file.syncDataSync();
    times.push(performance.now() - start);
  }
  await Deno.remove(path);
  return times.sort((a, b) => a - b)[100];
}
