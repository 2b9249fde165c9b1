/**
 * `start`: the embedded default. Serves a database in the data folder with an
 * access token that is generated once and kept beside it.
 */
import { dirname, join } from "node:path";
import { type Random, systemRandom } from "../common/random.ts";
import { isReadableByOthers, keepAccessToken } from "./access_token.ts";
import {
  checkAccessToken,
  type ServeConfig,
  type StartConfig,
} from "./config.ts";
import { type CliIo, say } from "./io.ts";

/** @returns the exit code */
export function start(
  config: StartConfig,
  io: CliIo,
  serve: (config: ServeConfig, io: CliIo) => Promise<number>,
  random: Random = systemRandom,
): Promise<number> {
  const tokenPath = join(dirname(config.serve.sqlitePath), "access-token");
  const { token, isNew } = keepAccessToken(tokenPath, random);
  checkAccessToken(token, `The access token in ${tokenPath}`);
  if (!isNew && isReadableByOthers(tokenPath)) {
    say(
      io,
      "warning",
      `others on this machine can read ${tokenPath}; run \`chmod 600 ${
        shellQuote(tokenPath)
      }\`.`,
    );
  }
  return serve({ ...config.serve, accessToken: token }, {
    ...io,
    onListening(url) {
      for (const line of instructions(url, Deno.realPathSync(tokenPath))) {
        io.out(line);
      }
      io.onListening?.(url);
    },
  });
}

/**
 * Lines to paste into a shell. The token stays in its file: what is printed
 * here ends up in terminals and logs.
 */
export function instructions(url: string, tokenPath: string): string[] {
  const token = `"$(cat ${shellQuote(tokenPath)})"`;
  const { host } = new URL(url);
  return [
    "",
    "Try it from Deno (paste into another terminal):",
    `  DENO_KV_ACCESS_TOKEN=${token} deno eval --unstable-kv 'const kv = await Deno.openKv("${url}"); await kv.set(["greeting"], "hello"); console.log((await kv.get(["greeting"])).value); kv.close()'`,
    "",
    "Run a program that opens it:",
    `  DENO_KV_ACCESS_TOKEN=${token} deno run --unstable-kv --allow-env=DENO_KV_ACCESS_TOKEN --allow-net=${host} program.ts`,
    "",
    "Try it with curl:",
    `  curl -X POST -H "Authorization: Bearer $(cat ${
      shellQuote(tokenPath)
    })" --data-binary hello ${url}/greeting`,
    `  curl -H "Authorization: Bearer $(cat ${
      shellQuote(tokenPath)
    })" ${url}/greeting`,
    "",
  ];
}

/** As one word of a POSIX shell. */
export function shellQuote(text: string): string {
  return /^[\w./@%+=:,-]+$/.test(text)
    ? text
    : `'${text.replaceAll("'", `'\\''`)}'`;
}
