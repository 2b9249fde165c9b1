/**
 * The listening socket. Where the system refuses a connection (most often
 * because the process has no descriptor left) `Deno.serve` closes its socket
 * and is done; the connections it has go on. So a new one listens as soon as
 * there are descriptors again, and the old ones are kept until they drain.
 *
 * Some descriptors are set aside. When connections have taken all others,
 * these are let go for the server's own work (the write-ahead log, the
 * backup), and it listens again only when it could set them aside anew.
 */
import type { Clock, Timer } from "../common/clock.ts";
import { messageOf } from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import { missingPermission } from "../common/permissions.ts";
import { NotTakenError } from "./answers.ts";
import { listenError } from "./listen_error.ts";
import { text } from "./responses.ts";

/** Descriptors that connections never get. */
const SPARE_DESCRIPTORS = 32;
const FIRST_RETRY_MS = 100;
const MAX_RETRY_MS = 1000;
/**
 * Servers that only have connections left, the oldest of which is asked to end:
 * its idle connections are closed, what is under way is finished.
 */
const MAX_OLD_SERVERS = 64;
/** While it cannot listen, the log says so this often. */
const REMIND_EVERY_MS = 10_000;

export interface ListenerOptions {
  hostname: string;
  /** 0: any free one, the same from then on. */
  port: number;
  clock: Clock;
  logger: Logger;
  /**
   * A file that may be opened and closed at any time, and holds the
   * descriptors that are set aside. Absent: none are.
   */
  spareFile?: string;
}

type HttpServer = Deno.HttpServer<Deno.NetAddr>;

export class Listener {
  /** How often the system has refused to accept a connection. */
  acceptFailures = 0;
  isAccepting = false;
  readonly hostname: string;
  readonly port: number;
  /** The one that listens is the last; the others only have connections. */
  private readonly servers: HttpServer[] = [];
  private readonly ending = new Set<Promise<void>>();
  private spare: Disposable[] = [];
  private retry: Timer | undefined;
  private retryMs = FIRST_RETRY_MS;
  private remindedMs = -Infinity;
  private isStopped = false;

  /** @throws StartupError where the address cannot be listened on */
  constructor(
    private readonly options: ListenerOptions,
    private readonly handler: Deno.ServeHandler<Deno.NetAddr>,
  ) {
    const { hostname, port } = options;
    let first: HttpServer;
    try {
      first = this.listen(port);
    } catch (error) {
      throw listenError(error, { hostname, port });
    }
    ({ hostname: this.hostname, port: this.port } = first.addr);
    this.setAside();
  }

  /** Takes no connections any more; resolves when the last one has ended. */
  async shutdown(): Promise<void> {
    this.isStopped = true;
    this.retry?.stop();
    this.letGo();
    while (this.servers.length > 0) this.endOldest();
    await Promise.all(this.ending);
  }

  private endOldest(): void {
    const ended = this.servers.shift()!.shutdown();
    this.ending.add(ended);
    void ended.finally(() => this.ending.delete(ended));
  }

  private listen(port: number): HttpServer {
    const { hostname, logger } = this.options;
    const server = Deno.serve({
      hostname,
      port,
      // A client could make the serving thread compress what it likes.
      automaticCompression: false,
      // The caller says where it listens, in its own words.
      onListen() {},
      onError(error) {
        const message = "An answer was not sent to its end.";
        const reason = messageOf(error);
        // Clients that take nothing are counted, and are no fault here.
        if (error instanceof NotTakenError) logger.debug(message, { reason });
        else logger.error(message, { reason });
        return text(500, "The server failed in an unforeseen way.");
      },
    }, this.handler);
    this.servers.push(server);
    if (this.servers.length > MAX_OLD_SERVERS) this.endOldest();
    this.isAccepting = true;
    server.finished.catch((error) => this.failed(error));
    return server;
  }

  private failed(error: unknown): void {
    this.acceptFailures++;
    this.isAccepting = false;
    if (this.isStopped) return;
    this.letGo();
    const now = this.options.clock.monotonicMs();
    if (now - this.remindedMs >= REMIND_EVERY_MS) {
      this.remindedMs = now;
      this.options.logger.error(
        "No connection can be accepted; those that are open are served. It listens again as soon as it can. If connections have taken all descriptors, raise the limit (ulimit -n), or close some.",
        { reason: missingPermission(error) ?? messageOf(error) },
      );
    }
    this.retryMs = FIRST_RETRY_MS;
    this.listenLater();
  }

  private listenLater(): void {
    this.retry?.stop();
    this.retry = this.options.clock.after(this.retryMs, () => {
      this.retry = undefined;
      this.retryMs = Math.min(this.retryMs * 2, MAX_RETRY_MS);
      if (this.isStopped) return;
      if (!this.setAside()) return this.listenLater();
      try {
        this.listen(this.port);
      } catch (error) {
        this.failed(error);
        return;
      }
      this.options.logger.info("Connections are accepted again.", {
        failures: this.acceptFailures,
      });
    });
  }

  /** Whether there were descriptors enough to set aside. */
  private setAside(): boolean {
    const { spareFile } = this.options;
    if (spareFile === undefined) return true;
    try {
      while (this.spare.length < SPARE_DESCRIPTORS) {
        this.spare.push(Deno.openSync(spareFile));
      }
      return true;
    } catch (error) {
      this.letGo();
      // Whatever else is wrong with the file is no reason not to serve.
      return !/too many open files/i.test(messageOf(error));
    }
  }

  private letGo(): void {
    for (const file of this.spare.splice(0)) file[Symbol.dispose]();
  }
}
