/**
 * `house/ambient`: time, timers and randomness are read in src/common alone;
 * everything else in src/ is handed a Clock and a Random, so that a test of
 * time or of faults can be repeated exactly. Tests may use what they need.
 */
import { pathInside } from "./layers_rule.ts";
import { isTest } from "./rooms.ts";
import { globalName, literalText, propertyName } from "./syntax.ts";

const CLOCK = "use the Clock of src/common/clock.ts";
const RANDOM = "use the Random of src/common/random.ts";

/** Functions by the global that carries them. */
const MEMBERS: Record<string, Record<string, string>> = {
  Date: { now: CLOCK },
  performance: { now: CLOCK, timeOrigin: CLOCK },
  process: { hrtime: CLOCK, uptime: CLOCK },
  AbortSignal: { timeout: CLOCK },
  Temporal: { Now: CLOCK },
  Math: { random: RANDOM },
  crypto: { randomUUID: RANDOM, getRandomValues: RANDOM },
};

const TIMERS = ["setTimeout", "setInterval", "setImmediate"];

/** Modules that carry the same under other names, and which names. */
const MODULES: Record<string, { names?: readonly string[]; instead: string }> =
  {
    "node:timers": { instead: CLOCK },
    "node:timers/promises": { instead: CLOCK },
    "node:perf_hooks": { instead: CLOCK },
    "node:crypto": {
      names: [
        "getRandomValues",
        "randomBytes",
        "randomFill",
        "randomFillSync",
        "randomInt",
        "randomUUID",
        "webcrypto",
      ],
      instead: RANDOM,
    },
  };

/** @param root the repository's folder as a file URL with a slash at its end */
export function ambientRule(root: URL): Deno.lint.Rule {
  return {
    create(context) {
      const path = pathInside(root, context.filename);
      if (
        path === undefined || !path.startsWith("src/") ||
        path.startsWith("src/common/") || isTest(path)
      ) return {};

      function report(node: Deno.lint.Node, what: string, instead: string) {
        context.report({
          node,
          message: `${what} is for src/common alone: ${instead}.`,
        });
      }

      return {
        Identifier(node) {
          if (TIMERS.includes(node.name) && isReference(node)) {
            report(node, node.name, CLOCK);
          }
        },
        MemberExpression(node) {
          const member = propertyName(node);
          if (member === undefined) return;
          const name = globalName(node.object);
          if (name !== undefined && Object.hasOwn(MEMBERS, name)) {
            const instead = MEMBERS[name][member];
            if (instead) report(node, `${name}.${member}`, instead);
          }
          // `globalThis.setTimeout`: the plain name is seen as an Identifier.
          if (TIMERS.includes(globalName(node) ?? "")) {
            report(node, member, CLOCK);
          }
        },
        VariableDeclarator(node) {
          const name = node.init ? globalName(node.init) : undefined;
          if (
            name === undefined || node.id.type !== "ObjectPattern" ||
            !Object.hasOwn(MEMBERS, name)
          ) return;
          for (const property of node.id.properties) {
            if (property.type !== "Property") continue;
            const member = property.key.type === "Identifier"
              ? property.key.name
              : literalText(property.key);
            const instead = member && MEMBERS[name][member];
            if (instead) report(property, `${name}.${member}`, instead);
          }
        },
        NewExpression(node) {
          if (globalName(node.callee) === "Date" && !node.arguments.length) {
            report(node, "new Date()", CLOCK);
          }
        },
        CallExpression(node) {
          if (globalName(node.callee) === "Date") {
            report(node, "Date()", CLOCK);
          }
        },
        ImportDeclaration(node) {
          const source = node.source.value;
          const module = MODULES[source] ?? MODULES[`node:${source}`];
          if (module === undefined || node.importKind === "type") return;
          for (const specifier of node.specifiers) {
            const name = importedName(specifier);
            if (!module.names || !name || module.names.includes(name)) {
              report(
                specifier,
                name ? `${name} of ${source}` : source,
                module.instead,
              );
            }
          }
        },
      };
    },
  };
}

/** Undefined for a whole module: `import * as x` and `import x`. */
function importedName(
  specifier: Deno.lint.ImportDeclaration["specifiers"][number],
): string | undefined {
  if (specifier.type !== "ImportSpecifier") return undefined;
  return specifier.imported.type === "Identifier"
    ? specifier.imported.name
    : specifier.imported.value;
}

/** Whether an identifier stands for a value, not for a name of a member. */
function isReference(node: Deno.lint.Identifier): boolean {
  const { parent } = node;
  switch (parent.type) {
    case "MemberExpression":
      return parent.object === node || parent.computed;
    case "Property":
      return parent.value === node;
    case "ImportSpecifier":
    case "MethodDefinition":
    case "PropertyDefinition":
    case "TSMethodSignature":
    case "TSPropertySignature":
    case "TSTypeQuery":
    case "TSQualifiedName":
      return false;
    default:
      return true;
  }
}
