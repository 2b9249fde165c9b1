/** A server program as a child of a test: started, awaited, and taken down. */

export interface ChildServer {
  readonly pid: number;
  /** Ends the process and removes its files. Safe to call twice. */
  stop(): Promise<void>;
}

export interface ChildServerOptions {
  name: string;
  path: string;
  args: string[];
  env?: Record<string, string>;
  /** Answers 2xx once the server is ready. */
  readyUrl?: string;
  /** Where that is told in another way. */
  isReady?(): Promise<boolean>;
  /** Removed, with all in it, when the server has ended. */
  temporaryFolder?: string;
}

const READY_LIMIT_MS = 30_000;
const READY_POLL_MS = 20;

/** A TCP port of 127.0.0.1 that nothing listens on at present. */
export function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

/** Starts a server and resolves when it is ready; rejects if it ends first. */
export async function startChildServer(
  options: ChildServerOptions,
): Promise<ChildServer> {
  const child = new Deno.Command(options.path, {
    args: options.args,
    env: options.env,
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  let lastWords = "";
  const reading = (async () => {
    const text = child.stderr.pipeThrough(new TextDecoderStream());
    for await (const chunk of text) {
      lastWords = (lastWords + chunk).slice(-2000);
    }
  })();
  let hasEnded = false;
  const ended = child.status.then(() => {
    hasEnded = true;
  });

  let stopping: Promise<void> | undefined;
  const server: ChildServer = {
    pid: child.pid,
    stop: () =>
      stopping ??= (async () => {
        if (!hasEnded) child.kill("SIGKILL");
        await ended;
        await reading;
        if (options.temporaryFolder !== undefined) {
          await Deno.remove(options.temporaryFolder, { recursive: true });
        }
      })(),
  };

  const until = performance.now() + READY_LIMIT_MS;
  const ready = options.isReady ?? (() => answersWell(options.readyUrl!));
  while (!await ready()) {
    if (hasEnded || performance.now() > until) {
      await server.stop();
      throw new Error(`${options.name} did not get ready: ${lastWords}`);
    }
    await new Promise((resolve) => setTimeout(resolve, READY_POLL_MS));
  }
  return server;
}

async function answersWell(url: string): Promise<boolean> {
  try {
    const answer = await fetch(url);
    await answer.body?.cancel();
    return answer.ok;
  } catch {
    return false;
  }
}
