/**
 * Java programs from Maven Central for tests, fetched once into the ignored
 * `.cache` by Maven itself, and kept there by version.
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { isFolder, removeTree } from "./folders.ts";

const FOLDER = fileURLToPath(new URL("../../.cache/maven", import.meta.url));

/** A fetch that takes longer than this is given up. */
const FETCH_LIMIT_MS = 10 * 60_000;

/**
 * The folder with an artifact's jar and those that it runs with, or the reason
 * why there is none.
 */
export async function mavenJars(
  group: string,
  artifact: string,
  version: string,
): Promise<{ folder: string } | { skipped: string }> {
  const name = `${artifact}-${version}`;
  const folder = join(FOLDER, name);
  if (await isFolder(join(folder, "jars"))) return { folder };
  await Deno.mkdir(FOLDER, { recursive: true });
  const lock = await Deno.open(join(FOLDER, `${name}.lock`), {
    create: true,
    write: true,
  });
  try {
    await lock.lock(true);
    if (await isFolder(join(folder, "jars"))) return { folder };
    const making = `${folder}.making`;
    await removeTree(making);
    await Deno.mkdir(making);
    await Deno.writeTextFile(
      join(making, "pom.xml"),
      `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>test</groupId><artifactId>test</artifactId><version>1</version>
  <packaging>pom</packaging>
  <dependencies><dependency>
    <groupId>${group}</groupId>
    <artifactId>${artifact}</artifactId>
    <version>${version}</version>
  </dependency></dependencies>
</project>
`,
    );
    console.error(`[maven] fetching ${name}, once (some 50 MB)`);
    const { success, stdout, stderr } = await new Deno.Command("mvn", {
      args: [
        "-q",
        "-B",
        "dependency:copy-dependencies",
        "-DincludeScope=runtime",
        "-DoutputDirectory=jars",
      ],
      cwd: making,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      signal: AbortSignal.timeout(FETCH_LIMIT_MS),
    }).output();
    if (!success) {
      const said = new TextDecoder().decode(stdout) +
        new TextDecoder().decode(stderr);
      await removeTree(making);
      return {
        skipped: `Maven could not fetch ${name}: ${said.trim().slice(-300)}`,
      };
    }
    await Deno.rename(making, folder);
    return { folder };
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return { skipped: "mvn is not installed" };
  } finally {
    lock.close();
  }
}
