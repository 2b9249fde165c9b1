/** What a command needs of the process around it; tests hand in their own. */
export interface CliIo {
  /** Writes one line to standard output. */
  out(line: string): void;
  /** Writes one line to standard error. */
  err(line: string): void;
  /**
   * Called by `serve` once it listens, with the URL that clients use, such as
   * `http://localhost:4512`, no slash at its end.
   */
  onListening?(url: string): void;
}
