/** Files that former launches set aside. */
import { systemClock } from "../common/clock.ts";
import { messageOf } from "../common/errors.ts";
import type { Logger } from "../common/log.ts";
import { asideFiles, removeOldAside } from "../store/sqlite/aside.ts";
import type { ServeBackupConfig } from "./config.ts";

/** Files of former launches; nothing of them is needed to serve. */
export async function tidyAside(
  file: string,
  databaseId: string,
  { keepAsideMs }: ServeBackupConfig,
  logger: Logger,
): Promise<void> {
  try {
    const beforeMs = systemClock.nowMs() - keepAsideMs;
    for (const aside of await removeOldAside(file, databaseId, beforeMs)) {
      const { path, sizeBytes } = aside;
      logger.info(
        "A database file that was set aside was removed: all that it held is in the backup's history.",
        { path, sizeBytes },
      );
    }
    for (const { path, sizeBytes, isInHistory } of asideFiles(file)) {
      if (isInHistory) continue;
      logger.warn(
        "A database file that was set aside holds what the backup may not have. It is kept until a person removes it.",
        { path, sizeBytes },
      );
    }
  } catch (error) {
    const reason = messageOf(error);
    logger.warn("Files that were set aside were not looked at.", { reason });
  }
}
