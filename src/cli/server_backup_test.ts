import assert from "node:assert/strict";
import { askServer } from "./server_backup.ts";
import { backupSnapshot } from "./backup.ts";

const PUBLIC = { state: "Active", lagMs: 5 };
const MORE = {
  epoch: 3,
  generation: "g",
  bucketVersion: "00000000000000070000",
  lagBytes: 0,
};
const BACKUP = { ...PUBLIC, ...MORE, durability: "local" };

function serve(answer: (request: Request) => Response) {
  return Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, answer);
}

async function asked(answer: (request: Request) => Response, secret?: string) {
  await using server = serve(answer);
  const address = { hostname: "127.0.0.1", port: server.addr.port };
  return await askServer({ address, secret });
}

Deno.test("what a server says of its backup is taken, and nothing that only looks like it", async () => {
  for (const status of ["ready", "not ready"]) {
    assert.deepEqual(
      await asked(() => Response.json({ status, backup: BACKUP })),
      { kind: "backup", backup: { ...PUBLIC, more: MORE } },
    );
    assert.deepEqual(
      await asked(() => Response.json({ status, backup: PUBLIC })),
      { kind: "backup", backup: PUBLIC },
    );
  }
  const requests = { put: 1, list: 2, get: 3, head: 4, delete: 5, forMs: 6 };
  assert.deepEqual(
    await asked(() =>
      Response.json({ status: "ready", backup: { ...BACKUP, requests } })
    ),
    { kind: "backup", backup: { ...PUBLIC, more: { ...MORE, requests } } },
  );
  assert.deepEqual(
    await asked(() =>
      Response.json({
        status: "ready",
        backup: { ...BACKUP, requests: { ...requests, head: "4" } },
      })
    ),
    { kind: "backup", backup: { ...PUBLIC, more: MORE } },
  );
  await asked((request) => {
    assert.equal(request.headers.get("authorization"), "Bearer a secret");
    return Response.json({ status: "ready", backup: BACKUP });
  }, "a secret");
  for (
    const [answer, why] of [
      [{ status: "ready" }, /^the one at 127\.0\.0\.1:\d+ has no backup$/],
      [{ backup: BACKUP }, /is no denokv server$/],
      [[], /is no denokv server$/],
      [null, /is no denokv server$/],
      ["ready", /is no denokv server$/],
      [{ status: "ready", backup: {} }, /is not understood$/],
      [
        { status: "ready", backup: { ...BACKUP, lagMs: "5" } },
        /is not understood$/,
      ],
      [
        { status: "ready", backup: { ...BACKUP, bucketVersion: "7" } },
        /is not understood$/,
      ],
    ] as const
  ) {
    const found = await asked(() => Response.json(answer));
    assert(found.kind === "none", JSON.stringify(answer));
    assert.match(found.why, why);
  }
  const closed = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = closed.addr as Deno.NetAddr;
  closed.close();
  const gone = await askServer({ address: { hostname: "127.0.0.1", port } });
  assert(gone.kind === "none");
  assert.match(
    gone.why,
    /^none answers at 127\.0\.0\.1:\d+ \(Nothing listens there\)$/,
  );
});

async function snapshot(answer: () => Response) {
  await using server = serve(answer);
  const lines: string[] = [];
  const line = (text: string) => void lines.push(text);
  const { port } = server.addr;
  const config = {
    address: { hostname: "127.0.0.1", port },
    secret: "a secret",
    json: false,
  };
  assert.equal(await backupSnapshot(config, { out: line, err: line }), 0);
  return lines.join("\n");
}

Deno.test("a snapshot that was asked for of no server, or with a wrong secret, says so", async () => {
  assert.match(
    await snapshot(() => Response.json({ generation: "g-1" })),
    /^New generation g-1, complete in /,
  );
  for (
    const [answer, sentence] of [
      [
        () => new Response("missing or wrong", { status: 401 }),
        /^The server does not know this secret.*Nothing was changed/,
      ],
      [
        () => new Response("This server has no backup.\n", { status: 404 }),
        /^The server refused \(404\): This server has no backup\.$/,
      ],
      [
        () => new Response("<h1>no</h1>", { status: 404 }),
        /\(status 404\) is no denokv server.*check --addr/,
      ],
      [() => new Response("<h1>hello</h1>"), /is no denokv server/],
      [() => Response.json({}), /is no denokv server/],
    ] as const
  ) {
    await assert.rejects(snapshot(answer), (error: Error) => {
      assert.match(error.message, sentence);
      return true;
    });
  }
});
