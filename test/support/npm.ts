/** npm packages for tests in Node, fetched once into the ignored `.cache`. */
import { fileURLToPath } from "node:url";

const FOLDER = fileURLToPath(new URL("../../.cache/npm", import.meta.url));

/**
 * A folder whose `node_modules` has the package, or the reason why not.
 * @param version exactly
 */
export async function npmPackage(
  name: string,
  version: string,
): Promise<{ folder: string } | { skipped: string }> {
  const folder = `${FOLDER}/${name.replace("/", "-")}-${version}`;
  try {
    await Deno.stat(`${folder}/node_modules/${name}/package.json`);
    return { folder };
  } catch {
    // Not there yet.
  }
  await Deno.mkdir(folder, { recursive: true });
  try {
    const { success, stderr } = await new Deno.Command("npm", {
      args: [
        "install",
        "--prefix",
        folder,
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        `${name}@${version}`,
      ],
      cwd: folder,
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).output();
    if (success) return { folder };
    const reason = new TextDecoder().decode(stderr).trim().slice(-300);
    return { skipped: `npm could not install ${name}@${version}: ${reason}` };
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return { skipped: "npm is not installed" };
  }
}
