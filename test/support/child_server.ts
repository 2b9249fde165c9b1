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

const READY_LIMIT_MS = 90_000;
const READY_POLL_MS = 20;

/**
 * A TCP port of 127.0.0.1 that nothing listens on at present. Not one of those
 * that systems give to connections: on a busy machine it would be taken before
 * the program that is told of it listens there.
 */
export function freePort(): number {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    try {
      Deno.listen({ hostname: "127.0.0.1", port }).close();
      return port;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
}

/** Starts a program on a port of its own; on another where that was taken. */
export async function onFreePort<T>(
  start: (port: number) => Promise<T>,
): Promise<T> {
  for (let left = 3;; left--) {
    try {
      return await start(freePort());
    } catch (error) {
      if (left === 0) throw error;
    }
  }
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
  // What answers may be another test's, and this one was refused the port.
  if (hasEnded) {
    await server.stop();
    throw new Error(`${options.name} has ended: ${lastWords}`);
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
