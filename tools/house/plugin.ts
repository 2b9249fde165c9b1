/**
 * The laws of the house as lint rules; deno.json loads them into `deno lint`.
 * Cycles need all files at once and are found by tools/cycles.ts.
 */
import { ambientRule } from "./ambient_rule.ts";
import { layersRule } from "./layers_rule.ts";

const root = new URL("../../", import.meta.url);

export default {
  name: "house",
  rules: { layers: layersRule(root), ambient: ambientRule(root) },
} satisfies Deno.lint.Plugin;
