/** The text of `--help`, out of the option table. */
import {
  type CommandName,
  COMMANDS,
  defaultOf,
  isCommand,
  optionsOf,
  type OptionSpec,
} from "./options.ts";
import { formatDuration } from "./duration.ts";
import { VERSION } from "./version.ts";

const WIDTH = 80;

export function generalHelp(): string {
  const commands = [
    ...Object.entries(COMMANDS).map(([name, { help }]) => [name, help]),
    ["help", "Print this text, or the help of a command"],
  ];
  return [
    `denokv ${VERSION}: a self-hosted Deno KV server`,
    "",
    "Usage: denokv [OPTIONS] <COMMAND>",
    "",
    "Commands:",
    ...commands.map(([name, help]) => `  ${name.padEnd(17)}${help}`),
    "",
    "Options:",
    "  -h, --help     Print help; `denokv <COMMAND> --help` lists its options",
    "  -V, --version  Print the version",
    "",
    "Options may stand before or after the command. A flag beats the environment",
    "variable beside it.",
  ].join("\n");
}

export function commandHelp(command: CommandName): string {
  const { help, about } = COMMANDS[command];
  const options = optionsOf(command).map(([, spec]) => spec);
  const argument = options.find(({ isArgument }) => isArgument);
  const lines = [
    `${help}.`,
    "",
    ...about,
    "",
    `Usage: denokv ${command} [OPTIONS]${
      argument === undefined ? "" : ` <${argument.placeholder}>`
    }`,
    "",
  ];
  if (argument !== undefined) {
    lines.push("Arguments:", `      ${flagForm(argument)}`);
    lines.push(...details(argument, command), "");
  }
  lines.push("Options:");
  for (const spec of options) {
    if (spec.flag === undefined) continue;
    lines.push(`      ${flagForm(spec)}`, ...details(spec, command));
  }
  lines.push("  -h, --help", "          Print help");
  const fromEnvironment = options.filter((spec) =>
    spec.flag === undefined && !spec.isArgument
  );
  if (fromEnvironment.length > 0) {
    lines.push("", "Only from the environment:");
    for (const spec of fromEnvironment) {
      lines.push(`      ${spec.env}`, ...details(spec, command));
    }
  }
  return lines.join("\n");
}

export function helpFor(topic: string | undefined): string {
  return topic !== undefined && isCommand(topic)
    ? commandHelp(topic)
    : generalHelp();
}

/** `--addr <HOST:PORT>`. */
export function flagForm(spec: OptionSpec): string {
  if (spec.isArgument) return `<${spec.placeholder}>`;
  const short = spec.short === undefined ? "" : `-${spec.short}, `;
  return spec.placeholder === undefined
    ? `${short}--${spec.flag}`
    : `${short}--${spec.flag} <${spec.placeholder}>`;
}

/** What values an option takes, in words; nothing where any text will do. */
export function rangeOf(spec: OptionSpec): string | undefined {
  switch (spec.type.kind) {
    case "integer":
      return `${spec.type.min} to ${spec.type.max}`;
    case "duration":
      return `${formatDuration(spec.type.minMs)} to ${
        formatDuration(spec.type.maxMs)
      }`;
    case "choice":
      return spec.type.choices.join(", ");
    default:
      return undefined;
  }
}

function details(spec: OptionSpec, command: CommandName): string[] {
  const notes: string[] = [];
  const range = rangeOf(spec);
  if (range !== undefined) notes.push(`[values: ${range}]`);
  if (spec.flag !== undefined && spec.env !== undefined) {
    notes.push(`[env: ${spec.env}]`);
  }
  const value = defaultOf(spec, command);
  if (value !== undefined && value !== false) {
    notes.push(`[default: ${value}]`);
  }
  return wrap([spec.help, ...notes].join(" "), "          ");
}

function wrap(text: string, indent: string): string[] {
  const lines: string[] = [];
  let line = indent;
  // A note in brackets stays in one piece.
  for (const word of text.match(/\[[^\]]*\]|\S+/g) ?? []) {
    if (line !== indent && line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = indent;
    }
    line += line === indent ? word : ` ${word}`;
  }
  lines.push(line);
  return lines;
}
