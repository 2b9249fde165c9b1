/** Small readers of the syntax tree that the lint rules share. */

/** The text of a string literal or of a template without substitutions. */
export function literalText(node: Deno.lint.Node): string | undefined {
  if (node.type === "Literal" && typeof node.value === "string") {
    return node.value;
  }
  if (node.type === "TemplateLiteral" && node.expressions.length === 0) {
    return node.quasis[0].cooked;
  }
  if (node.type === "TSLiteralType") return literalText(node.literal);
  return undefined;
}

/** The property that a member expression names, as `.name` or `["name"]`. */
export function propertyName(
  node: Deno.lint.MemberExpression,
): string | undefined {
  if (!node.computed && node.property.type === "Identifier") {
    return node.property.name;
  }
  return literalText(node.property);
}

const GLOBAL_OBJECTS = ["globalThis", "self", "window"];

/** `name` for both `name` and `globalThis.name`. */
export function globalName(node: Deno.lint.Node): string | undefined {
  if (node.type === "Identifier") return node.name;
  if (
    node.type === "MemberExpression" && node.object.type === "Identifier" &&
    GLOBAL_OBJECTS.includes(node.object.name)
  ) return propertyName(node);
  return undefined;
}

export function isImportMeta(node: Deno.lint.Node): boolean {
  return node.type === "MetaProperty" && node.meta.name === "import";
}
