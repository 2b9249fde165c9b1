/** Change feeds, many at once, by one that has a secret. */
import type { AttackContext, Seen } from "../attacker.ts";

interface Settings {
  feeds: number;
  query: string;
  headers: Record<string, string>;
}

const open = (port: number, { query, headers }: Settings) =>
  fetch(`http://127.0.0.1:${port}/-/changes?${query}`, { headers });

/** Each is read to its end, and then asked for again. */
export async function feedsAgain(
  { port, settings, underWay, told }: AttackContext<Settings>,
): Promise<Seen> {
  const seen = { ended: 0, refused: 0 };
  let isTold = false;
  void told.then(() => isTold = true);
  const loops = Array.from({ length: settings.feeds }, async () => {
    while (!isTold) {
      const answer = await open(port, settings);
      for await (const _ of answer.body!);
      if (answer.ok) seen.ended++;
      else seen.refused++;
    }
  });
  underWay();
  await Promise.all(loops);
  return seen;
}

/** Their answers are not read. */
export async function unreadFeeds(
  { port, settings, underWay, told }: AttackContext<Settings>,
): Promise<Seen> {
  const answers = await Promise.all(
    Array.from({ length: settings.feeds }, () => open(port, settings)),
  );
  underWay();
  await told;
  const refused = answers.filter(({ ok }) => !ok).length;
  for (const { body } of answers) await body?.cancel().catch(() => {});
  return { open: answers.length - refused, refused };
}

/** Opened and left at once. */
export async function feedChurn(
  { port, settings, underWay, told }: AttackContext<
    Settings & { rounds: number }
  >,
): Promise<Seen> {
  underWay();
  let left = 0;
  for (let round = 0; round < settings.rounds; round++) {
    await Promise.all(
      Array.from({ length: settings.feeds }, async (_, index) => {
        const ended = new AbortController();
        const asked = fetch(
          `http://127.0.0.1:${port}/-/changes?${settings.query}`,
          {
            headers: settings.headers,
            signal: ended.signal,
          },
        );
        // Some before there is an answer, some behind its first line.
        if (index % 2 === 0) {
          await asked.then(({ body }) => body?.getReader().read());
        } else await Promise.resolve();
        ended.abort();
        await asked.catch(() => {});
        left++;
      }),
    );
  }
  await told;
  return { left };
}
