/**
 * Finds import cycles between the files of src/, types and dynamic imports
 * included: in a cycle no file can be read, tested or moved without the
 * others. Prints each and exits with 1 where there is one.
 */
import { fileURLToPath } from "node:url";

/** Each file and the files that it imports. */
export type Graph = ReadonlyMap<string, readonly string[]>;

/**
 * One cycle for every group of files that import each other in a ring, as the
 * files along it, each importing the next and the last the first.
 */
export function findCycles(graph: Graph): string[][] {
  const cycles: string[][] = [];
  const state = new Map<string, "open" | "done">();
  const trail: string[] = [];
  function visit(file: string): void {
    state.set(file, "open");
    trail.push(file);
    for (const next of graph.get(file) ?? []) {
      if (!graph.has(next)) continue;
      if (state.get(next) === "open") {
        cycles.push(trail.slice(trail.indexOf(next)));
      } else if (state.get(next) === undefined) visit(next);
    }
    trail.pop();
    state.set(file, "done");
  }
  for (const file of graph.keys()) {
    if (state.get(file) === undefined) visit(file);
  }
  return cycles;
}

interface ModuleInfo {
  specifier: string;
  dependencies?: {
    code?: { specifier?: string };
    type?: { specifier?: string };
  }[];
}

/** The graph of the TypeScript files under a folder, as Deno resolves it. */
export async function readGraph(folder: URL): Promise<Graph> {
  // `deno info` takes one file: one that imports all the others.
  const entry = await Deno.makeTempFile({ suffix: ".ts" });
  try {
    const files = await filesUnder(folder);
    const imports = files.map((file) => `import ${JSON.stringify(file)};\n`);
    await Deno.writeTextFile(entry, imports.join(""));
    const { success, stdout, stderr } = await new Deno.Command(
      Deno.execPath(),
      {
        args: ["info", "--json", "--quiet", entry],
        cwd: fileURLToPath(new URL("../", import.meta.url)),
      },
    ).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
    const { modules } = JSON.parse(new TextDecoder().decode(stdout)) as {
      modules: ModuleInfo[];
    };
    const graph = new Map<string, string[]>();
    for (const { specifier, dependencies = [] } of modules) {
      if (!specifier.startsWith(folder.href)) continue;
      const targets = dependencies.flatMap(({ code, type }) => [
        ...code?.specifier ? [code.specifier] : [],
        ...type?.specifier ? [type.specifier] : [],
      ]);
      graph.set(specifier, [...new Set(targets)]);
    }
    return graph;
  } finally {
    await Deno.remove(entry);
  }
}

async function filesUnder(folder: URL): Promise<string[]> {
  const files: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (isDirectory) {
      files.push(...await filesUnder(new URL(`${name}/`, folder)));
    } else if (name.endsWith(".ts")) files.push(new URL(name, folder).href);
  }
  return files.sort();
}

if (import.meta.main) {
  const source = new URL("../src/", import.meta.url);
  const graph = await readGraph(source);
  const cycles = findCycles(graph);
  for (const cycle of cycles) {
    const names = [...cycle, cycle[0]].map((file) =>
      `src/${file.slice(source.href.length)}`
    );
    console.error(`Import cycle: ${names.join(" -> ")}`);
  }
  console.log(`${graph.size} files in src, ${cycles.length} import cycles`);
  Deno.exit(cycles.length === 0 ? 0 : 1);
}
