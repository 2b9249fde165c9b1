/** The request that puts one object whole, and how its body is sent. */
import * as aws from "@aws-sdk/client-s3";
import type { Clock } from "../common/clock.ts";
import type { PutOptions } from "./object_store.ts";
import { PacedBody, PIECE_BYTES } from "./paced_body.ts";

interface HttpRequest {
  headers: Record<string, string>;
  body: unknown;
}

export type PutInput = aws.PutObjectCommandInput & { Body: Uint8Array };

export function putCommand(
  input: PutInput,
  { sha256, pauseMs = 0 }: PutOptions,
  clock: Clock,
): aws.PutObjectCommand {
  const command = new aws.PutObjectCommand(input);
  const { middlewareStack } = command;
  const { Body } = input;
  if (sha256 !== undefined) {
    // What is signed already is not computed again: 1.5 ms for 1 MiB.
    middlewareStack.add((next) => (args) => {
      const { headers } = args.request as HttpRequest;
      headers["x-amz-content-sha256"] = sha256;
      return next(args);
    }, { step: "build" });
  }
  if (pauseMs > 0 && Body.length > PIECE_BYTES) {
    // The last step: it is signed by then.
    middlewareStack.add((next) => (args) => {
      const request = args.request as HttpRequest;
      request.body = new PacedBody(Body, pauseMs, clock);
      return next(args);
    }, { step: "deserialize" });
  }
  return command;
}
