/**
 * A disk with faults around a real server: builds `fault_shim.c`, says with
 * which environment the server has to be started, and sets faults while it
 * runs.
 *
 * ```ts
 * await using shim = await faultShim(folder);
 * if (!shim) return; // it has printed SKIPPED and why
 * new Deno.Command("denokv", { env: { ...shim.env } }).spawn();
 * shim.set({ fsyncDelayUs: 2000 }); // from the next fsync on
 * shim.set({ writeFailures: "always", suffix: "-wal" }); // the disk is full
 * await shim.until((counts) => counts.writesFailed > 0);
 * shim.set({}); // there is space again
 * ```
 *
 * Deno lets `LD_PRELOAD` reach a child only where `--allow-run` names no
 * programs.
 */

/** How many calls from now on fail: a number of them, or all. */
export type Times = number | "always";

/** What is wrong with the disk; whatever is not named is in order. */
export interface Faults {
  /** Every fsync and fdatasync takes this much longer, in microseconds. */
  fsyncDelayUs?: number;
  /** fsync and fdatasync do not come back until this is set to false. */
  holdFsync?: boolean;
  /** fsync and fdatasync fail with EIO and make nothing durable. */
  fsyncFailures?: Times;
  /** write and pwrite fail with ENOSPC and write nothing. */
  writeFailures?: Times;
  /** ftruncate fails with EIO. */
  truncateFailures?: Times;
  /** flock fails with this number; 37 is ENOLCK, 95 is ENOTSUP. */
  lockErrno?: number;
  /** Only files whose path ends with this (at most 64 bytes): `-wal`. */
  suffix?: string;
}

/** Calls on files of the folder since the shim was made. */
export interface FaultCounts {
  fsyncs: number;
  fsyncsFailed: number;
  writesFailed: number;
  truncatesFailed: number;
  /** Calls that wait at this moment because of `holdFsync`. */
  fsyncsHeld: number;
}

export interface FaultShim extends AsyncDisposable {
  /** What the program needs in its environment. */
  readonly env: { LD_PRELOAD: string; DENOKV_FAULT_CONTROL: string };
  /** Takes the place of all faults set before. */
  set(faults: Faults): void;
  counts(): FaultCounts;
  /**
   * Resolves when the counts are as wished.
   * @throws Error after `timeoutMs` (10 s unless told)
   */
  until(
    wished: (counts: FaultCounts) => boolean,
    timeoutMs?: number,
  ): Promise<void>;
}

// The page of fault_shim.c.
const MAGIC = 0x31464b44;
const PAGE_BYTES = 4096;
const AT_FOLDER_LENGTH = 4;
const AT_FAULTS = 8;
const FAULTS_BYTES = 24;
const AT_COUNTS = 32;
const COUNTS_BYTES = 20;
const AT_LOCK_ERRNO = 52;
const AT_SUFFIX = 64;
const SUFFIX_BYTES = 64;
const AT_FOLDER = 128;

/**
 * Faults for the files below `folder` (it must exist), at first none. Without
 * Linux or a C compiler: prints `SKIPPED: why` and gives undefined.
 */
export async function faultShim(
  folder: string,
): Promise<FaultShim | undefined> {
  const library = await build();
  if (!library) return undefined;
  const controlFolder = await Deno.makeTempDir({ prefix: "denokv_faults_" });
  const controlPath = `${controlFolder}/control`;
  const page = new Uint8Array(PAGE_BYTES);
  const view = new DataView(page.buffer);
  // The shim sees the paths that the kernel knows, without symbolic links.
  const path = new TextEncoder().encode(await Deno.realPath(folder));
  if (path.length > PAGE_BYTES - AT_FOLDER) {
    throw new Error(`The path of ${folder} is too long for the fault shim.`);
  }
  view.setUint32(0, MAGIC, true);
  view.setUint32(AT_FOLDER_LENGTH, path.length, true);
  page.set(path, AT_FOLDER);
  await Deno.writeFile(controlPath, page);
  const file = await Deno.open(controlPath, { read: true, write: true });

  let presentSuffix = "";

  function write(at: number, bytes: Uint8Array): void {
    file.seekSync(at, Deno.SeekMode.Start);
    file.writeSync(bytes);
  }

  function counts(): FaultCounts {
    const bytes = new Uint8Array(COUNTS_BYTES);
    file.seekSync(AT_COUNTS, Deno.SeekMode.Start);
    file.readSync(bytes);
    const view = new DataView(bytes.buffer);
    return {
      fsyncs: view.getUint32(0, true),
      fsyncsFailed: view.getUint32(4, true),
      writesFailed: view.getUint32(8, true),
      truncatesFailed: view.getUint32(12, true),
      fsyncsHeld: view.getUint32(16, true),
    };
  }

  return {
    env: { LD_PRELOAD: library, DENOKV_FAULT_CONTROL: controlPath },
    set(faults) {
      const suffix = new TextEncoder().encode(faults.suffix ?? "");
      if (suffix.length > SUFFIX_BYTES) {
        throw new Error(`A suffix may have at most ${SUFFIX_BYTES} bytes.`);
      }
      // All off first: no call may meet the new faults on the old suffix. With
      // the same one a held call goes over to its new fault without a gap.
      if (String(suffix) !== presentSuffix) {
        write(AT_FAULTS, new Uint8Array(FAULTS_BYTES));
        write(AT_SUFFIX, suffix);
        presentSuffix = String(suffix);
      }
      write(AT_FAULTS, faultBytes(faults, suffix.length));
      const lockErrno = new Uint8Array(4);
      new DataView(lockErrno.buffer).setUint32(0, faults.lockErrno ?? 0, true);
      write(AT_LOCK_ERRNO, lockErrno);
    },
    counts,
    async until(wished, timeoutMs = 10_000) {
      const deadline = performance.now() + timeoutMs;
      while (!wished(counts())) {
        if (performance.now() > deadline) {
          throw new Error(
            `The faults waited for did not happen in ${timeoutMs} ms; so far: ${
              JSON.stringify(counts())
            }.`,
          );
        }
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    },
    async [Symbol.asyncDispose]() {
      // A program that still runs keeps the page: it must not stay held.
      write(AT_FAULTS, new Uint8Array(FAULTS_BYTES));
      file.close();
      await Deno.remove(controlFolder, { recursive: true });
    },
  };
}

function faultBytes(faults: Faults, suffixLength: number): Uint8Array {
  const bytes = new Uint8Array(FAULTS_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, suffixLength, true);
  view.setUint32(4, faults.holdFsync ? 1 : 0, true);
  view.setUint32(8, faults.fsyncDelayUs ?? 0, true);
  view.setInt32(12, times(faults.fsyncFailures), true);
  view.setInt32(16, times(faults.writeFailures), true);
  view.setInt32(20, times(faults.truncateFailures), true);
  return bytes;
}

function times(value: Times = 0): number {
  return value === "always" ? -1 : value;
}

/** The path of the built library, built anew when its source has changed. */
async function build(): Promise<string | undefined> {
  if (Deno.build.os !== "linux") {
    console.log("SKIPPED: the fault shim needs Linux (LD_PRELOAD).");
    return undefined;
  }
  const source = `${import.meta.dirname}/fault_shim.c`;
  const digest = await crypto.subtle.digest(
    "SHA-256",
    await Deno.readFile(source),
  );
  const name = new Uint8Array(digest).toHex().slice(0, 16);
  const cache = `${import.meta.dirname}/../../.cache/fault_shim`;
  await Deno.mkdir(cache, { recursive: true });
  // The real path: the program may be started in another folder.
  const library = `${await Deno.realPath(cache)}/${name}.so`;
  if (await exists(library)) return library;
  // Several tests may build at once: each into its own file, then moved.
  const unfinished = await Deno.makeTempFile({ dir: cache, suffix: ".so" });
  try {
    const { success, stderr } = await new Deno.Command("gcc", {
      args: ["-O2", "-shared", "-fPIC", "-o", unfinished, source, "-ldl"],
      stderr: "piped",
    }).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
    await Deno.rename(unfinished, library);
    return library;
  } catch (error) {
    await Deno.remove(unfinished);
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    console.log("SKIPPED: the fault shim needs gcc, which is not installed.");
    return undefined;
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
