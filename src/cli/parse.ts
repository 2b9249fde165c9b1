/**
 * Turns a command line and the environment into a command and its checked
 * options. A mistake is a {@linkcode UsageError}: one sentence that never
 * repeats a secret.
 */
import { parseArgs } from "node:util";
import { UsageError } from "../common/errors.ts";
import {
  type CommandName,
  COMMANDS,
  defaultOf,
  isCommand,
  OPTION_LIST,
  type OptionName,
  optionsOf,
  type OptionSpec,
  type OptionValues,
} from "./options.ts";
import { durationMs, formatDuration } from "./duration.ts";
import { closest } from "./suggest.ts";

/** Where a value came from; a flag beats the environment. */
export type Source = "flag" | "environment" | "default";

export type Invocation =
  /** `asked` is false where a command was needed and none was given. */
  | { kind: "help"; command?: CommandName; asked: boolean }
  | { kind: "version" }
  | {
    kind: "run";
    command: CommandName;
    values: OptionValues;
    sources: Partial<Record<OptionName, Source>>;
  };

/** A variable's value, or undefined where it is not set or may not be read. */
export type ReadEnv = (name: string) => string | undefined;

const BY_FLAG = new Map(
  OPTION_LIST.flatMap(([name, spec]) =>
    spec.flag === undefined ? [] : [[spec.flag, { name, spec }] as const]
  ),
);

/** @throws UsageError */
export function parseCommandLine(
  args: readonly string[],
  env: ReadEnv,
): Invocation {
  const { flags, words, isHelp, isVersion } = tokenize(args);
  if (words[0] === "help") {
    if (words.length === 1) return { kind: "help", asked: true };
    const command = commandOf(words.slice(1), flags);
    return { kind: "help", command, asked: true };
  }
  if (isHelp) {
    const command = words.find(isCommand);
    return { kind: "help", command, asked: true };
  }
  if (isVersion) return { kind: "version" };
  const given = new Map<OptionName, string | undefined>();
  for (const flag of flags) takeFlag(flag, given);
  if (words.length === 0) {
    if (args.length === 0) return { kind: "help", asked: false };
    throw new UsageError(
      `A command is missing: one of ${Object.keys(COMMANDS).join(", ")}.`,
    );
  }
  const command = commandOf(words, flags);
  const argument = argumentOf(command);
  if (argument !== undefined) given.set(argument[0], words[1]);
  return { kind: "run", command, ...settle(command, given, env) };
}

interface Flag {
  /** Without dashes. */
  name: string;
  /** As typed. */
  rawName: string;
  value: string | undefined;
  isInline: boolean;
}

function tokenize(args: readonly string[]) {
  const options: Record<
    string,
    { type: "string" | "boolean"; short?: string }
  > = {
    help: { type: "boolean", short: "h" },
    version: { type: "boolean", short: "V" },
  };
  for (const [flag, { spec }] of BY_FLAG) {
    options[flag] = {
      type: spec.type.kind === "boolean" ? "boolean" : "string",
      ...(spec.short && { short: spec.short }),
    };
  }
  const { tokens } = parseArgs({
    args: [...args],
    options,
    // Mistakes are told in our own sentences, below.
    strict: false,
    tokens: true,
    allowPositionals: true,
  });
  const flags: Flag[] = [];
  const words: string[] = [];
  let isHelp = false;
  let isVersion = false;
  for (const token of tokens) {
    if (token.kind === "positional") words.push(token.value);
    if (token.kind !== "option") continue;
    if (token.name === "help") isHelp = true;
    else if (token.name === "version") isVersion = true;
    else {
      flags.push({
        name: token.name,
        rawName: token.rawName,
        value: token.value,
        isInline: token.inlineValue === true,
      });
    }
  }
  // `backup status` is one command of two words.
  if (words.length > 1 && isCommand(words.slice(0, 2).join(" "))) {
    words.splice(0, 2, words.slice(0, 2).join(" "));
  } else if (words[0] === "help" && words.length > 2) {
    words.splice(1, 2, words.slice(1, 3).join(" "));
  }
  return { flags, words, isHelp, isVersion };
}

function takeFlag(
  flag: Flag,
  given: Map<OptionName, string | undefined>,
): void {
  const option = BY_FLAG.get(flag.name);
  if (
    option === undefined || !flag.rawName.startsWith("--") &&
      flag.rawName !== `-${option.spec.short}`
  ) throw unknownFlag(flag);
  const { name, spec } = option;
  const isBoolean = spec.type.kind === "boolean";
  // What follows a flag may be the next flag; "-1" is a bad number instead.
  const isNextFlag = !flag.isInline && /^-\D/.test(flag.value ?? "");
  if (!isBoolean && (flag.value === undefined || isNextFlag)) {
    throw new UsageError(
      `--${flag.name} needs a value: --${flag.name}=<${spec.placeholder}>.`,
    );
  }
  const text = isBoolean ? flag.value ?? "true" : flag.value;
  if (given.has(name) && given.get(name) !== text) {
    throw new UsageError(
      `--${flag.name} is given twice with different values: keep one.`,
    );
  }
  given.set(name, text);
}

function unknownFlag(flag: Flag): UsageError {
  const near = closest(flag.name, [...BY_FLAG.keys(), "help", "version"]);
  return new UsageError(
    `There is no option ${flag.rawName}` +
      (near === undefined ? "." : `; did you mean --${near}?`),
  );
}

function commandOf(words: readonly string[], flags: readonly Flag[]) {
  const [word, ...rest] = words;
  if (!isCommand(word)) {
    const near = closest(word, [...Object.keys(COMMANDS), "help"]);
    // A word may also be the tail of a secret that was not quoted.
    throw new UsageError(
      `There is no command ${hasSecret(flags) ? "of that name" : `'${word}'`}` +
        (near === undefined
          ? `; the commands are ${Object.keys(COMMANDS).join(", ")}.`
          : `; did you mean '${near}'?`),
    );
  }
  const taken = argumentOf(word) === undefined ? 0 : 1;
  if (rest.length > taken) {
    if (taken > 0) {
      throw new UsageError(
        `\`${word}\` takes one word, but got '${rest[1]}' as well.`,
      );
    }
    throw new UsageError(
      `\`${word}\` takes options only, but got ` +
        (hasSecret(flags) ? "another word." : `'${rest[0]}' as well.`),
    );
  }
  for (const flag of flags) {
    const spec = BY_FLAG.get(flag.name)?.spec;
    if (spec !== undefined && !spec.commands.includes(word)) {
      throw new UsageError(
        `--${flag.name} belongs to ${
          spec.commands.map((name) => `\`${name}\``).join(" and ")
        }, not to \`${word}\`.`,
      );
    }
  }
  return word;
}

/** The option that a word behind the command stands for. */
function argumentOf(command: CommandName) {
  return optionsOf(command).find(([, { isArgument }]) => isArgument);
}

function hasSecret(flags: readonly Flag[]): boolean {
  return flags.some(({ name }) => BY_FLAG.get(name)?.spec.isSecret);
}

function settle(
  command: CommandName,
  given: Map<OptionName, string | undefined>,
  env: ReadEnv,
) {
  const values: Record<string, string | number | boolean> = {};
  const sources: Partial<Record<OptionName, Source>> = {};
  for (const [name, spec] of optionsOf(command)) {
    const flagText = given.get(name);
    // An empty variable is what a compose file leaves for one not set.
    const envText = flagText === undefined && spec.env !== undefined
      ? env(spec.env) || undefined
      : undefined;
    if (flagText !== undefined) {
      const where = spec.isArgument
        ? `<${spec.placeholder}>`
        : `--${spec.flag}`;
      values[name] = valueOf(spec, where, flagText);
      sources[name] = "flag";
    } else if (envText !== undefined) {
      values[name] = valueOf(
        spec,
        `The environment variable ${spec.env}`,
        envText,
      );
      sources[name] = "environment";
    } else {
      const value = defaultOf(spec, command);
      if (value === undefined) continue;
      values[name] = spec.type.kind === "duration"
        ? valueOf(spec, name, String(value))
        : value;
      sources[name] = "default";
    }
  }
  // Each value was made by its own row's type.
  return { values: values as OptionValues, sources };
}

/** The words that clap, which the Rust server parses with, takes as well. */
const TRUE_WORDS = ["true", "1", "yes", "y", "on", "t"];
const FALSE_WORDS = ["false", "0", "no", "n", "off", "f"];

function valueOf(
  spec: OptionSpec,
  where: string,
  text: string,
): string | number | boolean {
  const { type } = spec;
  const got = spec.isSecret ? "" : `, but got '${text}'`;
  switch (type.kind) {
    case "string":
      if (text === "") throw new UsageError(`${where} must not be empty.`);
      return text;
    case "integer": {
      const value = Number(text);
      if (!/^\d+$/.test(text) || value < type.min || value > type.max) {
        throw new UsageError(
          `${where} needs a whole number from ${type.min} to ${type.max}${got}.`,
        );
      }
      return value;
    }
    case "boolean": {
      const word = text.toLowerCase();
      if (TRUE_WORDS.includes(word)) return true;
      if (FALSE_WORDS.includes(word)) return false;
      throw new UsageError(`${where} needs 'true' or 'false'${got}.`);
    }
    case "duration": {
      const valueMs = durationMs(text);
      if (
        valueMs === undefined || valueMs < type.minMs || valueMs > type.maxMs
      ) {
        throw new UsageError(
          `${where} needs a time such as 500ms, 10s, 5m, 12h or 7d, from ${
            formatDuration(type.minMs)
          } to ${formatDuration(type.maxMs)}${got}.`,
        );
      }
      return valueMs;
    }
    case "choice": {
      const choice = text.toLowerCase();
      if (type.choices.includes(choice)) return choice;
      throw new UsageError(
        `${where} needs ${
          type.choices.map((c) => `'${c}'`).join(" or ")
        }${got}.`,
      );
    }
  }
}
