/**
 * The launcher: `denokv`. Runs main.ts with exactly the permissions that the
 * command line, the environment and the backup's URL need.
 *
 *     deno run --allow-env --allow-read --allow-ffi --allow-run denokv.ts serve …
 */
import { launch } from "./src/cli/launcher_process.ts";

await launch(import.meta.resolve("./main.ts"));
