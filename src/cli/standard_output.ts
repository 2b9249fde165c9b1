/** Standard output for what may be much: at the pace of who reads it. */

/** Rejects where nobody reads it any more. */
export async function writeOutput(bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    at += await Deno.stdout.write(bytes.subarray(at));
  }
}
