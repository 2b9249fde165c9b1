/**
 * Structured log: one event a line, with a fixed message and named fields, as
 * text for people or JSON for machines. Secrets are never handed to it.
 */
import type { Clock } from "./clock.ts";

export type LogFormat = "text" | "json";
export type LogLevel = "debug" | "info" | "warn" | "error";
export type LogFields = Record<string, string | number | boolean | undefined>;

export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

export interface LoggerOptions {
  format: LogFormat;
  /** Events below this level are dropped. */
  level: LogLevel;
  clock: Clock;
  /** Takes one line without its line end. Default: standard error. */
  write?: (line: string) => void;
}

const ORDER: Record<LogLevel, number> = {
  debug: 0,
  info: 1,
  warn: 2,
  error: 3,
};

export function createLogger(options: LoggerOptions): Logger {
  const encoder = new TextEncoder();
  const write = options.write ??
    ((line: string) => {
      try {
        Deno.stderr.writeSync(encoder.encode(line + "\n"));
      } catch {
        // Nobody reads the log any more; serving goes on.
      }
    });
  const at = (level: LogLevel) => {
    if (ORDER[level] < ORDER[options.level]) return () => {};
    return (message: string, fields: LogFields = {}) => {
      const time = new Date(options.clock.nowMs()).toISOString();
      write(
        options.format === "json"
          ? jsonText({ time, level, message, ...fields })
          : textLine(time, level, message, fields),
      );
    };
  };
  return {
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
  };
}

/** Says nothing: for tests and short commands. */
export const silentLogger: Logger = {
  debug() {},
  info() {},
  warn() {},
  error() {},
};

function textLine(
  time: string,
  level: LogLevel,
  message: string,
  fields: LogFields,
): string {
  let line = `${time} ${level.toUpperCase().padEnd(5)} ${oneLine(message)}`;
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    const text = String(value);
    line += ` ${name}=${/^[\w.:/+-]+$/.test(text) ? text : jsonText(text)}`;
  }
  return line;
}

/**
 * What moves a terminal's cursor, ends a line or turns its direction, and
 * what JSON leaves as it is: a path may hold any of it.
 */
const UNSEEN = /[\p{Cc}\p{Cf}\u2028\u2029]+/gu;

function jsonText(value: unknown): string {
  return JSON.stringify(value).replace(UNSEEN, (unseen) => {
    let escaped = "";
    for (let i = 0; i < unseen.length; i++) {
      const code = unseen.charCodeAt(i).toString(16).padStart(4, "0");
      escaped += `\\u${code}`;
    }
    return escaped;
  });
}

/** A message may carry another program's words; it stays one line of log. */
function oneLine(text: string): string {
  return text.replace(UNSEEN, " ");
}
