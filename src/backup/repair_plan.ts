/** What a repair is going to write, and what a person is told of it before. */
import type { LostRange, Manifest } from "./manifest.ts";
import type { VersionedManifest } from "./manifest_store.ts";

export interface LeftOut {
  name: string;
  why: string;
}

export interface RepairPlan {
  /** What is wrong, in a sentence. */
  problem: string;
  /** What is written in its place. */
  manifest: Manifest;
  /** The version that is replaced; undefined: there is none. */
  replaces: VersionedManifest | undefined;
  /** The copy that it is made from. */
  copy: string | undefined;
  /** The newest version that can be restored then. */
  newestVersion: number;
  leftOut: LeftOut[];
  /** What ends the history earlier than it went. */
  lost: LostRange | undefined;
}

/** Nobody owns it, and whoever did is fenced by the epoch. */
export function released(manifest: Manifest, epoch: number): Manifest {
  return {
    ...manifest,
    epoch,
    owner: null,
    ownerUrl: null,
    leaseUntilMs: 0,
    handoverTo: null,
    standby: null,
  };
}
