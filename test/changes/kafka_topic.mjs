/**
 * A topic of Kafka for a test: node kafka_topic.mjs create|read <topic>. The
 * client is at KAFKA_CLIENT, the broker at KAFKA_BROKERS.
 */
import process from "node:process";

const { Admin, Consumer, stringDeserializers } = await import(
  process.env.KAFKA_CLIENT
);
const [what, topic] = process.argv.slice(2);
const common = {
  clientId: "test",
  bootstrapBrokers: [process.env.KAFKA_BROKERS],
};
if (what === "create") {
  const admin = new Admin(common);
  await admin.createTopics({ topics: [topic], partitions: 1, replicas: 1 });
  await admin.close();
} else {
  const consumer = new Consumer({
    ...common,
    groupId: "test",
    deserializers: stringDeserializers,
  });
  const [end] = (await consumer.listOffsets({ topics: [topic] })).get(topic);
  if (end > 0n) {
    const stream = await consumer.consume({
      topics: [topic],
      mode: "manual",
      offsets: [{ topic, partition: 0, offset: 0n }],
      autocommit: false,
    });
    for await (const record of stream) {
      console.log(record.value);
      if (record.offset === end - 1n) break;
    }
    await stream.close();
  }
  await consumer.close(true);
}
