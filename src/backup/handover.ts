/**
 * Whether the launch that asks for a hand-over is alive. Whoever asks writes a
 * small object again and again while it is ready to serve; the owner hands
 * over only when it has seen it change. So a launch that died after it asked,
 * or that cannot serve yet, does not take the database out of service.
 */
import { fromUtf8, utf8 } from "../common/bytes.ts";
import { type Clock, sleepUntil, type Timer } from "../common/clock.ts";
import { UnavailableError } from "../common/errors.ts";
import {
  type ObjectStore,
  ObjectStoreRefusedError,
} from "../object_store/object_store.ts";
import { HANDOVER_KEY } from "./names.ts";

/** Google Cloud Storage takes one write a second to one object. */
const BEAT_MS = 1000;
/** How often the owner looks for the next one. */
const LOOK_MS = 300;
/** A launch that is not seen alive for so long is taken for dead. */
const MAX_SILENCE_MS = 8 * BEAT_MS;

export interface HandoverOptions {
  objects: ObjectStore;
  clock: Clock;
}

/** Says that a launch is alive and ready, until it is stopped. */
export class HandoverBeat {
  private timer: Timer | undefined;
  private beats = 0;
  private isWriting = false;

  constructor(
    private readonly options: HandoverOptions,
    private readonly launch: string,
  ) {}

  start(): void {
    if (this.timer !== undefined) return;
    this.beat();
    this.timer = this.options.clock.every(BEAT_MS, () => this.beat());
  }

  stop(): void {
    this.timer?.stop();
    this.timer = undefined;
  }

  private beat(): void {
    // One that hangs is no reason to send another.
    if (this.isWriting) return;
    this.isWriting = true;
    const data = utf8(
      JSON.stringify({ format: 1, launch: this.launch, beat: ++this.beats }) +
        "\n",
    );
    this.options.objects.put(HANDOVER_KEY, data, { timeoutMs: MAX_SILENCE_MS })
      // The next one says the same.
      .catch(() => {})
      .finally(() => this.isWriting = false);
  }
}

/** Resolves when the launch was seen alive, or was not for a while. */
export async function isReadyToTakeOver(
  { objects, clock }: HandoverOptions,
  launch: string,
  signal: AbortSignal,
): Promise<boolean> {
  const untilMs = clock.monotonicMs() + MAX_SILENCE_MS;
  let first: number | undefined;
  while (clock.monotonicMs() < untilMs && !signal.aborted) {
    const beat = await beatOf(objects, launch, signal);
    if (beat !== undefined) {
      if (first !== undefined && beat !== first) return true;
      first = beat;
    }
    await sleepUntil(clock, LOOK_MS, signal);
  }
  return false;
}

async function beatOf(
  objects: ObjectStore,
  launch: string,
  signal: AbortSignal,
): Promise<number | undefined> {
  try {
    const object = await objects.get(HANDOVER_KEY, { signal });
    if (object === undefined) return undefined;
    const said = JSON.parse(fromUtf8(object.data) ?? "");
    return said?.launch === launch ? Number(said.beat) : undefined;
  } catch (error) {
    const isPassing = error instanceof UnavailableError ||
      error instanceof ObjectStoreRefusedError || error instanceof SyntaxError;
    if (!isPassing && !signal.aborted) throw error;
    return undefined;
  }
}

/** Keeps the newest request for a hand-over until there is who answers it. */
export class HandoverCalls {
  private answerer: ((launch: string) => void) | undefined;
  private waiting: string | undefined;

  request(launch: string): void {
    if (this.answerer) this.answerer(launch);
    else this.waiting = launch;
  }

  answer(answerer: (launch: string) => void): void {
    this.answerer = answerer;
    if (this.waiting !== undefined) answerer(this.waiting);
    this.waiting = undefined;
  }
}
