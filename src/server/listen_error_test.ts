import assert from "node:assert/strict";
import { listenError } from "./listen_error.ts";

const { AddrInUse, AddrNotAvailable, NotCapable, PermissionDenied } =
  Deno.errors;

Deno.test("each reason why an address cannot be had says what to do about that reason", () => {
  for (
    const [error, address, sentence] of [
      [
        new NotCapable(
          'Requires net access to "127.0.0.1:80", run again with the --allow-net flag',
        ),
        { hostname: "127.0.0.1", port: 80 },
        /permission.*is missing; add --allow-net=127\.0\.0\.1:80/,
      ],
      [
        new AddrInUse("Address already in use (os error 98)"),
        { hostname: "::1", port: 4512 },
        /^Another program listens on \[::1\]:4512 already\. Stop that program/,
      ],
      [
        new AddrNotAvailable("Cannot assign requested address (os error 99)"),
        { hostname: "192.0.2.1", port: 4512 },
        /^192\.0\.2\.1 is no address of this machine\. .*0\.0\.0\.0:4512 for all/,
      ],
      [
        new PermissionDenied("Permission denied (os error 13)"),
        { hostname: "0.0.0.0", port: 80 },
        /^This user may not listen on 0\.0\.0\.0:80: ports below 1024 need/,
      ],
      [
        new PermissionDenied("Permission denied (os error 13)"),
        { hostname: "0.0.0.0", port: 8080 },
        /^The system does not let this user listen on 0\.0\.0\.0:8080 \(Perm/,
      ],
      [
        new Error(
          "failed to lookup address information: Name or service not known",
        ),
        { hostname: "nowhere.invalid", port: 1 },
        /^The name nowhere\.invalid leads to no address/,
      ],
      [
        new Error("Invalid argument (os error 22)."),
        { hostname: "fe80::1", port: 1 },
        /^The server cannot listen on \[fe80::1\]:1 \(Invalid argument \(os error 22\)\)\. Choose/,
      ],
    ] as const
  ) {
    const { message } = listenError(error, address);
    assert.match(message, sentence);
    assert.match(message, / The database was not changed\.$/);
    const isTaken = error instanceof AddrInUse;
    assert.equal(/[Ss]top/.test(message), isTaken, message);
  }
});

Deno.test("the runtime's errors are of the kinds that this expects", () => {
  const errorOf = (listen: () => Deno.Listener) => {
    try {
      listen().close();
    } catch (error) {
      return error;
    }
    return undefined;
  };
  using taken = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = taken.addr as Deno.NetAddr;
  assert.ok(
    errorOf(() => Deno.listen({ hostname: "127.0.0.1", port })) instanceof
      AddrInUse,
  );
  assert.ok(
    errorOf(() => Deno.listen({ hostname: "192.0.2.1", port: 0 })) instanceof
      AddrNotAvailable,
  );
});
