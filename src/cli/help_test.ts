import assert from "node:assert/strict";
import { commandHelp, generalHelp } from "./help.ts";
import { COMMANDS, optionsOf } from "./options.ts";

Deno.test("the help names every command, option, variable and default", () => {
  for (const name of Object.keys(COMMANDS) as (keyof typeof COMMANDS)[]) {
    assert(generalHelp().includes(`  ${name} `));
    const text = commandHelp(name);
    for (const [, spec] of optionsOf(name)) {
      if (spec.flag !== undefined) assert(text.includes(`--${spec.flag}`));
      if (spec.env !== undefined) assert(text.includes(spec.env));
    }
  }
  assert.match(commandHelp("serve"), /\[default: 0\.0\.0\.0:4512\]/);
  assert.match(commandHelp("start"), /\[default: localhost:4512\]/);
});

Deno.test("the help fits a terminal of 80 columns", () => {
  const texts = [
    generalHelp(),
    ...(Object.keys(COMMANDS) as (keyof typeof COMMANDS)[]).map(commandHelp),
  ];
  for (const line of texts.join("\n").split("\n")) {
    assert(line.length <= 80, line);
  }
});
