/**
 * Whole commits out of what `denokv changes` prints, for programs that read it
 * from a pipe. Runs in Node and in Deno.
 */
import process from "node:process";

/**
 * Commits as they come, in lists of those that are there already. Each has its
 * versionstamp and its lines, parsed. The beginning of a commit whose end never
 * came is left out: it comes again, whole.
 */
export async function* commits(input = process.stdin) {
  const decoder = new TextDecoder();
  let rest = "";
  let lines = [];
  for await (const chunk of input) {
    const texts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = texts.pop();
    const whole = [];
    for (const text of texts) {
      const line = JSON.parse(text);
      // What is new in a later version of the server is passed over.
      if (line.type !== "set" && line.type !== "delete") continue;
      lines.push(line);
      if (!line.last) continue;
      whole.push({ versionstamp: line.versionstamp, lines });
      lines = [];
    }
    if (whole.length > 0) yield whole;
  }
}

/** Lists of commits that have at most so many lines together, or one commit. */
export function* batches(list, maxLines) {
  let batch = [];
  let count = 0;
  for (const commit of list) {
    if (count > 0 && count + commit.lines.length > maxLines) {
      yield batch;
      batch = [];
      count = 0;
    }
    batch.push(commit);
    count += commit.lines.length;
  }
  if (count > 0) yield batch;
}
