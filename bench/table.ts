/** The results, for people. */
import type { Machine } from "./machine.ts";
import { median, type Row } from "./row.ts";

export interface Result {
  id: string;
  title: string;
  unit: Row["unit"];
  judged: Row["judged"];
  atLeast: number;
  aim: number;
  /** Each round's value; empty where the row was skipped or failed. */
  ours: number[];
  peer: number[];
  note?: string;
  skipped?: string;
  failed?: string;
}

export type Reached = "aim" | "at least" | "no";

/** The number that the goals are about: a ratio, or our own value. */
export function judgedValue(result: Result): number {
  return isRatio(result)
    ? median(result.ours) / median(result.peer)
    : median(result.ours);
}

function isRatio({ judged }: Result): boolean {
  return judged === "ratio" || judged === "ratioAtMost";
}

function isLowerBound({ judged }: Result): boolean {
  return judged === "ratio" || judged === "oursAtLeast";
}

export function reached(result: Result): Reached {
  const value = judgedValue(result);
  const meets = (goal: number) =>
    isLowerBound(result) ? value >= goal : value <= goal;
  return meets(result.aim) ? "aim" : meets(result.atLeast) ? "at least" : "no";
}

/** As Markdown, so that it can be kept as it is. */
export function table(results: readonly Result[]): string {
  const lines = [[
    "row",
    "work",
    "ours",
    "peer",
    "ratio",
    "at least",
    "aim",
    "reached",
    "note",
  ]];
  for (const result of results) lines.push(line(result));
  const widths = lines[0].map((_, column) =>
    Math.max(...lines.map((line) => line[column].length))
  );
  const format = (line: string[]) =>
    `| ${line.map((cell, i) => cell.padEnd(widths[i])).join(" | ")} |`;
  const rule = `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`;
  return [format(lines[0]), rule, ...lines.slice(1).map(format)].join("\n");
}

function line(result: Result): string[] {
  const { id, title, unit } = result;
  const sign = isLowerBound(result) ? "≥" : "≤";
  const goalUnit = isRatio(result) ? "×" : withSpace(unit);
  const goals = [
    `${sign} ${result.atLeast}${goalUnit}`,
    `${sign} ${result.aim}${goalUnit}`,
  ];
  const why = result.skipped ?? result.failed;
  if (why !== undefined) {
    const state = result.skipped === undefined ? "FAILED" : "skipped";
    return [id, title, "", "", "", ...goals, state, why.split("\n")[0]];
  }
  const [ours, peer] = [median(result.ours), median(result.peer)];
  return [
    id,
    title,
    shown(ours, unit),
    shown(peer, unit),
    peer === 0 ? "" : `${(ours / peer).toFixed(2)}×`,
    ...goals,
    reached(result),
    result.note ?? "",
  ];
}

function shown(value: number, unit: Row["unit"]): string {
  const digits = unit === "×" ? 2 : 0;
  return `${value.toFixed(digits)}${withSpace(unit)}`;
}

function withSpace(unit: string): string {
  return unit === "MB" || unit === "ms" ? ` ${unit}` : unit;
}

export function machineLine(machine: Machine): string {
  return `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGb} GB, ` +
    `Linux ${machine.kernel}, Deno ${machine.deno}, ` +
    `a 4 KiB append and fsync ${machine.fsyncMs.toFixed(3)} ms`;
}
