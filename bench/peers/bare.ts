/**
 * The ceiling of any server on this runtime: reads each request's body and
 * answers a fixed number of bytes. Arguments: port, size of the answer.
 */
const [port, answerBytes] = Deno.args.map(Number);
const answer = new Uint8Array(answerBytes);

Deno.serve(
  { hostname: "127.0.0.1", port, onListen() {} },
  async (request) => {
    await request.bytes();
    return new Response(answer, {
      headers: { "content-type": "application/x-protobuf" },
    });
  },
);
