/**
 * `house/layers`: every way in which one file names another is held to the
 * table of rooms: imports, re-exports, dynamic imports, types, and the URLs
 * that Workers and files are loaded from.
 */
import { importFault, isTest } from "./rooms.ts";
import { isImportMeta, literalText, propertyName } from "./syntax.ts";

/** @param root the repository's folder as a file URL with a slash at its end */
export function layersRule(root: URL): Deno.lint.Rule {
  return {
    create(context) {
      const from = pathInside(root, context.filename);
      if (from === undefined) return {};
      const fileUrl = new URL(from, root);

      function check(node: Deno.lint.Node, specifier: string): void {
        // Packages, the runtime's own modules and data URLs are no rooms.
        if (!/^(\.{0,2}\/|file:)/.test(specifier)) return;
        const to = new URL(specifier, fileUrl).href;
        if (!to.startsWith(root.href)) {
          const message = `${specifier} leaves the repository.`;
          return context.report({ node, message });
        }
        const message = importFault(
          from!,
          decodeURIComponent(to.slice(root.href.length)).split(/[?#]/)[0],
        );
        if (message !== undefined) context.report({ node, message });
      }
      function checkSource(node: Deno.lint.Node, source: Deno.lint.Node) {
        const specifier = literalText(source);
        if (specifier !== undefined) return check(node, specifier);
        if (from!.startsWith("src/") && !isTest(from!)) {
          context.report({
            node,
            message:
              "What is imported has to be a plain string, so that it can be checked.",
          });
        }
      }

      return {
        ImportDeclaration: (node) => checkSource(node, node.source),
        ExportAllDeclaration: (node) => checkSource(node, node.source),
        ExportNamedDeclaration(node) {
          if (node.source) checkSource(node, node.source);
        },
        ImportExpression: (node) => checkSource(node, node.source),
        TSImportType: (node) => checkSource(node, node.argument),
        TSExternalModuleReference: (node) => checkSource(node, node.expression),
        NewExpression(node) {
          const [first, second] = node.arguments;
          if (first === undefined || node.callee.type !== "Identifier") return;
          const isOwnUrl = node.callee.name === "URL" &&
            second?.type === "MemberExpression" &&
            isImportMeta(second.object);
          if (!isOwnUrl && node.callee.name !== "Worker") return;
          const specifier = literalText(first);
          if (specifier === undefined) return;
          // A URL's first part needs no "./" in front.
          check(node, new URL(specifier, fileUrl).href);
        },
        CallExpression(node) {
          const { callee } = node;
          if (
            callee.type === "MemberExpression" && isImportMeta(callee.object) &&
            propertyName(callee) === "resolve" && node.arguments.length > 0
          ) checkSource(node, node.arguments[0]);
        },
      };
    },
  };
}

/** The file's path inside the repository, or undefined outside of it. */
export function pathInside(root: URL, filename: string): string | undefined {
  const path = filename.replaceAll("\\", "/");
  const folder = decodeURIComponent(root.pathname);
  return path.startsWith(folder) ? path.slice(folder.length) : undefined;
}
