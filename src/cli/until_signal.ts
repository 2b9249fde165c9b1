/** The end of a command that goes on until it is told to end. */

/** Aborted by SIGTERM or SIGINT; a second one ends the process as usual. */
export function untilSignal(): AbortSignal {
  const ended = new AbortController();
  const names: Deno.Signal[] = Deno.build.os === "windows"
    ? ["SIGINT"]
    : ["SIGINT", "SIGTERM"];
  const end = () => {
    for (const name of names) Deno.removeSignalListener(name, end);
    ended.abort();
  };
  for (const name of names) Deno.addSignalListener(name, end);
  return ended.signal;
}
