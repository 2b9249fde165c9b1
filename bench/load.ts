/**
 * The load generators: `wrk` for HTTP/1.1 and `h2load` for HTTP/2 in clear.
 * A run counts only when every single answer was a 2xx of the expected size:
 * a fast error must not look like a fast server.
 */
import { exchange, type Request, requestBytes } from "./http1.ts";

export interface Load {
  perSecond: number;
  requests: number;
  meanUs: number;
  /** Of wrk only. */
  p50Us?: number;
  p99Us?: number;
}

export interface LoadOptions {
  url: URL;
  connections: number;
  seconds: number;
  /** The core that the generator is bound to; not given: any of them. */
  cpu?: number;
  /** A folder for the generator's input. */
  folder: string;
}

/** Sends the requests in turn; they have to be answered in the same size. */
export async function wrk(
  options: LoadOptions,
  requests: readonly Request[],
): Promise<Load> {
  const { url, connections, seconds, cpu } = options;
  const probe = await exchange(url, requests[0]);
  if (probe.status !== 200) {
    throw new Error(
      `${requests[0].method} ${requests[0].path} answers ${probe.status}: ${
        new TextDecoder().decode(probe.body)
      }`,
    );
  }
  const file = await Deno.makeTempFile({ dir: options.folder });
  await writeRequests(file, url, requests);
  const threads = cpu === undefined
    ? Math.min(connections, navigator.hardwareConcurrency)
    : 1;
  const output = await run("wrk", cpu, [
    `-t${threads}`,
    `-c${connections}`,
    `-d${seconds}s`,
    "-s",
    `${import.meta.dirname}/wrk.lua`,
    url.origin,
    "--",
    file,
  ]);
  await Deno.remove(file);
  const outcome = JSON.parse(found(output, /OUTCOME (\{.*\})/));
  const { durationUs, badStatus, broken, bytes } = outcome;
  const count = outcome.requests;
  if (count === 0 || badStatus > 0 || broken > 0) {
    throw new Error(
      `wrk: of ${count} answers ${badStatus} were no success, ${broken} were broken off.`,
    );
  }
  const expectedBytes = count * probe.sizeBytes;
  // What was on its way at the end counts as bytes, not as an answer.
  const slackBytes = (connections + 1) * probe.sizeBytes;
  if (Math.abs(bytes - expectedBytes) > slackBytes) {
    throw new Error(
      `wrk: ${count} answers of ${probe.sizeBytes} bytes make ${expectedBytes} bytes, but ${bytes} came.`,
    );
  }
  return {
    perSecond: count / (durationUs / 1e6),
    requests: count,
    meanUs: outcome.meanUs,
    p50Us: outcome.p50Us,
    p99Us: outcome.p99Us,
  };
}

/** Sends one request over and over, `streams` at a time on each connection. */
export async function h2load(
  options: LoadOptions & { streams: number },
  request: Request,
): Promise<Load> {
  const { url, connections, seconds, cpu, streams } = options;
  const probe = await exchange(url, request);
  if (probe.status !== 200) throw new Error(`answered ${probe.status}`);
  const file = await Deno.makeTempFile({ dir: options.folder });
  await Deno.writeFile(file, request.body ?? new Uint8Array());
  const output = await run("h2load", cpu, [
    "-t1",
    `-c${connections}`,
    `-m${streams}`,
    `-D${seconds}`,
    ...Object.entries(request.headers).flatMap((
      [name, value],
    ) => ["-H", `${name}: ${value}`]),
    "-d",
    file,
    url.origin + request.path,
  ]);
  await Deno.remove(file);
  const [, done, succeeded, failed, errored, timeout] =
    /(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout/
      .exec(output)?.map(Number) ?? [];
  const ok = Number(found(output, /status codes: (\d+) 2xx/));
  if (!(done > 0) || failed + errored + timeout > 0 || ok < succeeded) {
    throw new Error(`h2load: not every answer was a success:\n${output}`);
  }
  const bodyBytes = Number(found(output, /\((\d+)\) data/)) / succeeded;
  if (Math.abs(bodyBytes / probe.body.length - 1) > 0.01) {
    throw new Error(
      `h2load: bodies of ${bodyBytes} bytes came instead of ${probe.body.length}.`,
    );
  }
  const means = /time for request:\s+\S+\s+\S+\s+(\S+)/.exec(output);
  return {
    perSecond: Number(found(output, /, ([\d.]+) req\/s/)),
    requests: succeeded,
    meanUs: durationUs(means?.[1] ?? ""),
  };
}

async function writeRequests(
  file: string,
  url: URL,
  requests: readonly Request[],
): Promise<void> {
  const encoder = new TextEncoder();
  const parts: Uint8Array<ArrayBuffer>[] = [];
  for (const request of requests) {
    const bytes = requestBytes(url, request);
    parts.push(encoder.encode(`${bytes.length}\n`), bytes.slice());
  }
  await Deno.writeFile(
    file,
    new Uint8Array(await new Blob(parts).arrayBuffer()),
  );
}

async function run(
  tool: string,
  cpu: number | undefined,
  args: readonly string[],
): Promise<string> {
  const command = cpu === undefined
    ? [tool]
    : ["taskset", "-c", `${cpu}`, tool];
  const { success, stdout, stderr } = await new Deno.Command(command[0], {
    args: [...command.slice(1), ...args],
    stdout: "piped",
    stderr: "piped",
  }).output();
  const output = new TextDecoder().decode(stdout);
  if (!success) {
    throw new Error(`${tool}: ${new TextDecoder().decode(stderr)}${output}`);
  }
  return output;
}

function found(text: string, pattern: RegExp): string {
  const match = pattern.exec(text);
  if (!match) throw new Error(`${pattern} is not in the output:\n${text}`);
  return match[1];
}

/** h2load's times: `843us`, `1.25ms`, `2.01s`. */
function durationUs(text: string): number {
  const value = parseFloat(text);
  if (text.endsWith("us")) return value;
  return value * (text.endsWith("ms") ? 1e3 : 1e6);
}
