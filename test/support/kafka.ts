/** A real Kafka broker for a test: its own process, ports and folder. */
import { freePort, startChildServer } from "./child_server.ts";
import { mavenJars } from "./maven.ts";

const VERSION = "4.1.0";

export interface Kafka {
  /** `host:port`. */
  readonly broker: string;
  stop(): Promise<void>;
}

/** Undefined, after printing SKIPPED, where it cannot be had. Stop it. */
export async function startKafka(): Promise<Kafka | undefined> {
  if (!await hasJava()) {
    console.log(
      "SKIPPED: a Kafka broker needs Java 17, which is not installed",
    );
    return undefined;
  }
  const found = await mavenJars("org.apache.kafka", "kafka_2.13", VERSION);
  if ("skipped" in found) {
    console.log(`SKIPPED: ${found.skipped}`);
    return undefined;
  }
  const folder = await Deno.makeTempDir({ prefix: "kafka-" });
  const [port, controllerPort] = [freePort(), freePort()];
  const settings = `${folder}/server.properties`;
  await Deno.writeTextFile(
    settings,
    `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:${controllerPort}
listeners=PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}
controller.listener.names=CONTROLLER
log.dirs=${folder}/data
message.max.bytes=33554432
socket.request.max.bytes=67108864
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
num.network.threads=1
num.io.threads=2
background.threads=1
log.cleaner.enable=false
group.initial.rebalance.delay.ms=0
`,
  );
  const java = ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp"];
  const classPath = `${found.folder}/jars/*`;
  const { success, stderr } = await new Deno.Command("java", {
    args: [
      ...java,
      classPath,
      "kafka.tools.StorageTool",
      "format",
      "-t",
      "MkU3OEVBNTcwNTJENDM2Qk",
      "-c",
      settings,
    ],
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).output();
  if (!success) {
    throw new Error(`Kafka: ${new TextDecoder().decode(stderr).slice(-2000)}`);
  }
  const server = await startChildServer({
    name: "Kafka",
    path: "java",
    args: [...java, classPath, "kafka.Kafka", settings],
    isReady: () => accepts(port),
    temporaryFolder: folder,
  });
  return { broker: `127.0.0.1:${port}`, stop: () => server.stop() };
}

async function hasJava(): Promise<boolean> {
  try {
    return (await new Deno.Command("java", { args: ["-version"] }).output())
      .success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** A broker listens once it has joined the cluster of itself. */
async function accepts(port: number): Promise<boolean> {
  try {
    (await Deno.connect({ hostname: "127.0.0.1", port })).close();
    return true;
  } catch {
    return false;
  }
}
