/** Every relative link leads somewhere, and every page can be reached. */
import assert from "node:assert/strict";
import { dirname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

async function linksOf(page: string): Promise<string[]> {
  const text = await Deno.readTextFile(join(ROOT, page));
  return [...text.matchAll(/\]\(([^)\s]+)\)/g)].map((match) => match[1])
    .filter((link) => !/^[a-z]+:|^#/.test(link))
    .map((link) => normalize(join(dirname(page), link.split("#")[0])));
}

async function pages(folder: string): Promise<string[]> {
  const found: string[] = [];
  for await (const entry of Deno.readDir(join(ROOT, folder))) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) found.push(...await pages(path));
    else if (path.endsWith(".md")) found.push(path);
  }
  return found;
}

Deno.test("links in the documents lead somewhere, and every page is reached from the README", async () => {
  const reached = new Set(["README.md"]);
  for (const page of reached) {
    for (const link of await linksOf(page)) {
      await assert.doesNotReject(
        Deno.stat(join(ROOT, link)),
        `${page} links to ${link}`,
      );
      if (link.endsWith(".md")) reached.add(link);
    }
  }
  for (const page of await pages("docs")) {
    assert.ok(reached.has(page), `${page} is reached from nowhere`);
  }
});
