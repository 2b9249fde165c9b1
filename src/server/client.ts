/** Who asks, and whether it has its answer: what the runtime knows of it. */
export type Client = Pick<
  Deno.ServeHandlerInfo<Deno.NetAddr>,
  "remoteAddr" | "completed"
>;

/** The client's address and port: one connection. */
export function nameOf({ remoteAddr }: Pick<Client, "remoteAddr">): string {
  const { hostname, port } = remoteAddr;
  return `${hostname}:${port}`;
}
