import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { startKafka } from "../support/kafka.ts";
import { npmPackage } from "../support/npm.ts";
import {
  commitsOf,
  hasNode,
  isWholeHistory,
  killAndResume,
  type Line,
} from "./pipeline.ts";

const TOPIC = "denokv.changes";
const TOPIC_PROGRAM = fileURLToPath(
  new URL("kafka_topic.mjs", import.meta.url),
);

Deno.test("a change feed in Kafka: nothing is lost, nothing out of order, whatever is killed", async () => {
  if (!await hasNode()) return;
  const client = await npmPackage("@platformatic/kafka", "1.35.0");
  if ("skipped" in client) return console.log(`SKIPPED: ${client.skipped}`);
  const kafka = await startKafka();
  if (kafka === undefined) return;
  const env = {
    KAFKA_BROKERS: kafka.broker,
    KAFKA_TOPIC: TOPIC,
    KAFKA_CLIENT:
      `file://${client.folder}/node_modules/@platformatic/kafka/dist/index.js`,
  };
  const topic = async (what: string) => {
    const { success, stdout, stderr } = await new Deno.Command("node", {
      args: [TOPIC_PROGRAM, what, TOPIC],
      env,
    }).output();
    assert.ok(success, new TextDecoder().decode(stderr));
    return new TextDecoder().decode(stdout).trim();
  };
  try {
    await topic("create");
    const history = await killAndResume({ program: "kafka.mjs", env });
    const lines = (await topic("read")).split("\n")
      .map((line) => JSON.parse(line) as Line);
    isWholeHistory(commitsOf(lines), history);
  } finally {
    await kafka.stop();
  }
});
