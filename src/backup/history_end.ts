/** Where a history ends, as far as the seals tell. */
import type { Manifest } from "./manifest.ts";

export interface HistoryEnd {
  generation: string;
  version: number;
}

/**
 * The end of what the owners before the present one have left; undefined where
 * there is no history yet.
 */
export function historyEndOf(
  { generation, generations, seals, epoch }: Manifest,
): HistoryEnd | undefined {
  if (generation === null) return undefined;
  let { snapshotVersion: version } = generations
    .find(({ name }) => name === generation)!;
  for (const seal of seals) {
    if (seal.generation === generation && seal.epoch < epoch) {
      version = Math.max(version, seal.lastVersion);
    }
  }
  return { generation, version };
}
