/** What change feeds are given of a backup; loaded only where there is one. */
import { ManifestStore } from "../backup/manifest_store.ts";
import { systemClock } from "../common/clock.ts";
import { systemRandom } from "../common/random.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import { DATA_PATIENCE, Patience } from "../object_store/patience.ts";
import { BackupSource } from "../replica/backup_source.ts";
import { BackupPastLog } from "../replica/past_log.ts";
import type { PastLog } from "../store/log_source.ts";

/** Between two looks while another instance takes the database over. */
const LOOK_MS = 1000;

export function openPastLog(objects: ObjectStore): PastLog {
  return new BackupPastLog(() =>
    new BackupSource({
      objects,
      manifests: new ManifestStore(objects, systemClock, systemRandom),
      clock: systemClock,
      patience: new Patience({ clock: systemClock, ...DATA_PATIENCE }),
      intervalMs: LOOK_MS,
    })
  );
}
