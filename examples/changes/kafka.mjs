/**
 * A change feed into a topic of Kafka (docs/changes.md):
 *
 *     npm install @platformatic/kafka@1.35.0
 *     denokv changes --follow --from "$(node kafka.mjs position)" | node kafka.mjs
 *
 * A request to the broker holds whole commits and one partition takes them
 * whole or not at all, so the topic's newest record says how far it is: nothing
 * else has to be kept. The topic needs a max.message.bytes of 32 MiB for the
 * largest commits.
 */
import process from "node:process";
import { batches, commits } from "./commits.mjs";

/** `npm:@platformatic/kafka@1.35.0` in Deno, which then installs it by itself. */
const client = process.env.KAFKA_CLIENT ?? "@platformatic/kafka";
const {
  Consumer,
  ProduceAcks,
  Producer,
  stringDeserializers,
  stringSerializers,
} = await import(client);

const topic = process.env.KAFKA_TOPIC ?? "denokv.changes";
/** One partition: the order of commits is the order of the topic. */
const PARTITION = 0;
const MAX_LINES = 1000;
const common = {
  clientId: "denokv-changes",
  bootstrapBrokers: (process.env.KAFKA_BROKERS ?? "localhost:9092").split(","),
};

/** The versionstamp of the newest record; `oldest` where there is none. */
async function position() {
  const consumer = new Consumer({
    ...common,
    groupId: "denokv-changes-position",
    deserializers: stringDeserializers,
  });
  const offsets = await consumer.listOffsets({ topics: [topic] });
  const end = offsets.get(topic)[PARTITION];
  let versionstamp = "oldest";
  if (end > 0n) {
    const stream = await consumer.consume({
      topics: [topic],
      mode: "manual",
      offsets: [{ topic, partition: PARTITION, offset: end - 1n }],
      autocommit: false,
    });
    for await (const record of stream) {
      versionstamp = JSON.parse(record.value).versionstamp;
      break;
    }
    await stream.close();
  }
  await consumer.close(true);
  return versionstamp;
}

async function deliver() {
  const producer = new Producer({
    ...common,
    serializers: stringSerializers,
    // What is sent again after a lost answer is taken once, and in its order.
    idempotent: true,
    acks: ProduceAcks.ALL,
  });
  for await (const list of commits()) {
    for (const batch of batches(list, MAX_LINES)) {
      await producer.send({
        messages: batch.flatMap(({ lines }) =>
          lines.map((line) => ({
            topic,
            partition: PARTITION,
            key: JSON.stringify(line.key),
            value: JSON.stringify(line),
          }))
        ),
      });
    }
  }
  await producer.close();
}

if (process.argv[2] === "position") console.log(await position());
else await deliver();
