/**
 * What the server says of itself: addresses under `/-/`. Anyone may ask
 * whether it is well; why it is not, in the words of disks and providers, is
 * for the holder of a secret.
 */
import { versionstampHex } from "../protocol/versionstamp.ts";
import type { BackupReport, ReplicaReport, Store } from "../store/store.ts";
import type { Access } from "./access.ts";
import type { RequestMetrics, ServerCounts } from "./metrics.ts";
import { json, text } from "./responses.ts";
import { utf8 } from "../common/bytes.ts";

/** A backup, as the server needs it. */
export interface BackupControl {
  report(): BackupReport;
  /** Cheap: asked for every REST answer. */
  durableVersions(): { local: number; bucket: number };
  /** Begins a new generation; resolves when it is complete. */
  snapshot(): Promise<{ generation: string }>;
}

/** A replica, as the server needs it. */
export interface ReplicaControl {
  report(): ReplicaReport;
}

/** Of a server that may become the owner, or has. */
export interface PromotionControl {
  /** Resolves when it is decided. */
  promote(): Promise<
    | { kind: "promoted"; epoch: number; version: number }
    | { kind: "refused" | "failed"; why: string }
  >;
}

export interface ServiceDeps {
  store: Store;
  version: string;
  access: Access;
  metrics: RequestMetrics;
  counts(): ServerCounts;
  /** What this server is may change while it runs. */
  backup(): BackupControl | undefined;
  replica(): ReplicaControl | undefined;
  promotion: PromotionControl | undefined;
  /** A sentence while the server is stopping. */
  stopping(): string | undefined;
}

/** Why a server is not ready: a name for anyone, a sentence for its owner. */
interface NotReady {
  name: string;
  reason: string;
}

export class Service {
  constructor(private readonly deps: ServiceDeps) {}

  handle(request: Request, path: string): Response | Promise<Response> {
    switch (path) {
      case "/-/health":
      case "/-/ready":
      case "/-/metrics":
        if (request.method !== "GET" && request.method !== "HEAD") {
          return text(405, "This address takes GET only.", [[
            "allow",
            "GET, HEAD",
          ]]);
        }
        return this.tell(request, path);
      case "/-/backup/snapshot":
        return this.snapshot(request);
      case "/-/promote":
        return this.promote(request);
      default:
        return text(404, NOTHING_HERE);
    }
  }

  private tell(request: Request, path: string): Response {
    const { deps } = this;
    if (path === "/-/health") {
      return json(200, { status: "ok", version: deps.version });
    }
    if (path === "/-/ready") return this.ready(request);
    const page = utf8(
      deps.metrics.render(
        deps.store,
        deps.version,
        this.notReady() === undefined,
        deps.counts(),
        deps.backup(),
        deps.replica(),
      ),
    );
    return new Response(page, {
      headers: [
        ["content-type", "text/plain; version=0.0.4; charset=utf-8"],
        ["content-length", String(page.length)],
        ["cache-control", "no-store"],
      ],
    });
  }

  private ready(request: Request): Response {
    const { access } = this.deps;
    const isOwner = access.mayWrite(request);
    const notReady = this.notReady();
    const report = this.deps.backup()?.report();
    const followed = this.deps.replica()?.report();
    return json(notReady === undefined ? 200 : 503, {
      status: notReady === undefined ? "ready" : "not ready",
      cause: notReady?.name,
      reason: isOwner ? notReady?.reason : undefined,
      backup: report && (isOwner ? wholeReport(report) : publicReport(report)),
      replica: followed &&
        (isOwner
          ? { ...followed, version: versionstampHex(followed.version, 0) }
          : publicReplica(followed)),
    });
  }

  private notReady(): NotReady | undefined {
    const stopping = this.deps.stopping();
    if (stopping !== undefined) return { name: "stopping", reason: stopping };
    const health = this.deps.store.health();
    return health.writable
      ? undefined
      : { name: health.cause, reason: health.reason };
  }

  private async promote(request: Request): Promise<Response> {
    const refused = this.refusedOrder(request);
    if (refused !== undefined) return refused;
    const { promotion, replica } = this.deps;
    if (promotion === undefined) {
      return text(409, replica() ? NOT_PROMOTABLE : NO_REPLICA);
    }
    const outcome = await promotion.promote();
    if (outcome.kind !== "promoted") {
      return text(outcome.kind === "refused" ? 409 : 503, outcome.why);
    }
    return json(200, {
      epoch: outcome.epoch,
      versionstamp: versionstampHex(outcome.version, 0),
    });
  }

  /** Of what changes the server: it is asked by POST, with a secret. */
  private refusedOrder(request: Request): Response | undefined {
    if (request.method !== "POST") {
      return text(405, "This address takes POST only.", [["allow", "POST"]]);
    }
    if (this.deps.access.mayWrite(request)) return undefined;
    const isMissing = !request.headers.has("authorization");
    return text(
      401,
      `The access token or KVSTORE_SECRET is ${
        isMissing ? "missing" : "wrong"
      }.`,
      [["www-authenticate", "Bearer"]],
    );
  }

  private async snapshot(request: Request): Promise<Response> {
    const refused = this.refusedOrder(request);
    if (refused !== undefined) return refused;
    const backup = this.deps.backup();
    if (backup === undefined) {
      return text(404, "This server has no backup; start it with --backup.");
    }
    return json(200, await backup.snapshot());
  }
}

const NOTHING_HERE =
  "Nothing is here. Addresses under /-/ belong to the server; a key whose first part is a dash is written /%2D.";

const NOT_PROMOTABLE =
  "This replica was started without --backup, so it may only read. Nothing was changed. Start it with --backup PLACE, its primary's backup, beside --replica-of URL or --replica-from PLACE, and promote it then.";
const NO_REPLICA =
  "This server is no replica: it serves its database itself, or stands by for it. Nothing was changed.";

/** Versions as people and clients know them. */
function wholeReport(report: BackupReport) {
  return {
    ...report,
    localVersion: versionstampHex(report.localVersion, 0),
    bucketVersion: versionstampHex(report.bucketVersion, 0),
  };
}

/** Without the words of a provider, which name buckets and hosts. */
function publicReport(
  { durability, state, lagMs, lastErrorKind }: BackupReport,
) {
  return { durability, state, lagMs, lastErrorKind };
}

function publicReplica({ state, via, lagMs, lastErrorKind }: ReplicaReport) {
  return { state, via, lagMs, lastErrorKind };
}
