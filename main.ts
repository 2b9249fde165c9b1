/** The door: `denokv`. Run it with `--help`. */
import { runProcess } from "./src/cli/process.ts";

await runProcess({
  // Loaded when it is needed: mistakes and --help are answered without it.
  serve: async (config, io) =>
    await (await import("./src/cli/serve.ts")).serve(config, io),
});
