/**
 * Writes docs/options.md out of the option table: `deno task docs`. A test
 * fails when the file says something else than the table.
 */
import { flagForm, rangeOf } from "../src/cli/help.ts";
import {
  type CommandName,
  COMMANDS,
  defaultOf,
  optionsOf,
  type OptionSpec,
} from "../src/cli/options.ts";

export const OPTIONS_PAGE = new URL("../docs/options.md", import.meta.url);

export function optionsPage(): string {
  const commands = Object.keys(COMMANDS) as CommandName[];
  return [
    "# Commands and options",
    "",
    "Made from the option table in `src/cli/options.ts` by `deno task docs`; do not edit it by hand.",
    "",
    "Options may stand before or after the command, as `--flag value` or `--flag=value`. A flag beats the environment variable beside it, and an empty variable counts as one that is not set. A switch is on when it is named; `=true` and `=false` are taken too, in a variable also `1`, `0`, `yes`, `no`, `on`, `off`. `--help` prints the same, `--version` the version.",
    "",
    "Exit codes: 0 done, 1 could not start or go on, 2 used wrongly, 3 handed over to another instance, 4 fenced by one; `backup status` has more. The reason is one sentence on standard error.",
    "",
    ...commands.flatMap(section),
  ].join("\n");
}

function section(command: CommandName): string[] {
  const { help, about } = COMMANDS[command];
  return [
    `## \`denokv ${command}\``,
    "",
    `${help}. ${about.join(" ")}`,
    "",
    "| flag | environment | default | what it does |",
    "| --- | --- | --- | --- |",
    ...optionsOf(command).map(([, spec]) => row(command, spec)),
    "",
  ];
}

function row(command: CommandName, spec: OptionSpec): string {
  const flag = spec.flag === undefined && !spec.isArgument
    ? ""
    : `\`${flagForm(spec)}\``;
  const env = spec.env === undefined ? "" : `\`${spec.env}\``;
  const value = defaultOf(spec, command);
  const preset = value === undefined
    ? ""
    : typeof value === "boolean"
    ? value ? "on" : "off"
    : `\`${value}\``;
  const range = rangeOf(spec);
  const help = range === undefined
    ? spec.help
    : `${spec.help} Values: ${range}.`;
  return `| ${flag} | ${env} | ${preset} | ${help} |`;
}

if (import.meta.main) await Deno.writeTextFile(OPTIONS_PAGE, optionsPage());
