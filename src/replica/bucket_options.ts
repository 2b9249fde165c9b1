/** What is read out of a bucket needs. */
import type { ManifestStore } from "../backup/manifest_store.ts";
import type { ObjectStore } from "../object_store/object_store.ts";
import type { Patience } from "../object_store/patience.ts";
import type { PaceOptions } from "./pace.ts";

export interface BucketSourceOptions extends PaceOptions {
  objects: ObjectStore;
  manifests: ManifestStore;
  patience: Patience;
}
