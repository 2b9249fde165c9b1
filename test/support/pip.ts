/**
 * Packages from PyPI for tests, fetched once into the ignored `.cache` by pip,
 * and kept there by version; nothing of the machine's Python is changed.
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { isFolder } from "./folders.ts";

const FOLDER = fileURLToPath(new URL("../../.cache/pip", import.meta.url));

/** A fetch that takes longer than this is given up. */
const FETCH_LIMIT_MS = 10 * 60_000;

/**
 * A folder for PYTHONPATH that has the package, without what it depends on; or
 * the reason why there is none.
 */
export async function pipPackage(
  name: string,
  version: string,
): Promise<{ folder: string } | { skipped: string }> {
  const folder = join(FOLDER, `${name}-${version}`);
  if (await isFolder(folder)) return { folder };
  await Deno.mkdir(FOLDER, { recursive: true });
  const lock = await Deno.open(join(FOLDER, `${name}.lock`), {
    create: true,
    write: true,
  });
  try {
    await lock.lock(true);
    if (await isFolder(folder)) return { folder };
    const making = `${folder}.making`;
    console.error(`[pip] fetching ${name} ${version}, once`);
    const { success, stderr } = await new Deno.Command("python3", {
      args: [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--upgrade",
        "--target",
        making,
        `${name}==${version}`,
      ],
      stdin: "null",
      stdout: "null",
      stderr: "piped",
      signal: AbortSignal.timeout(FETCH_LIMIT_MS),
    }).output();
    if (!success) {
      const said = new TextDecoder().decode(stderr).trim().slice(-300);
      return { skipped: `pip could not install ${name} ${version}: ${said}` };
    }
    await Deno.rename(making, folder);
    return { folder };
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return { skipped: "python3 is not installed" };
  } finally {
    lock.close();
  }
}
