/*
 * A disk with faults, for tests and benchmarks: preloaded into a server (any
 * program that calls libc), it makes fsync slow or fail and writes find the
 * disk full, for files below one folder and nothing else.
 *
 * Settings live in a page shared with the test (shim.ts writes the file that
 * is mapped here), so they take effect at the very next call. Every field is
 * read and changed atomically: calls come from many threads at once.
 *
 * While a fault is off its calls go straight through; only then is a file
 * descriptor's path looked up (one readlink, about 1 µs), never remembered,
 * because descriptors are reused.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x31464b44u
#define PAGE_BYTES 4096
#define SUFFIX_BYTES 64
#define FOLDER_BYTES (PAGE_BYTES - 128)

/* The layout is known to shim.ts too. Counts of faults: -1 is always. */
struct control {
  uint32_t magic;
  uint32_t folder_length;
  _Atomic uint32_t suffix_length;
  _Atomic uint32_t hold_fsync;
  _Atomic uint32_t fsync_delay_us;
  _Atomic int32_t fsync_failures;
  _Atomic int32_t write_failures;
  _Atomic int32_t truncate_failures;
  /* What happened so far, for the test to read. */
  _Atomic uint32_t fsyncs;
  _Atomic uint32_t fsyncs_failed;
  _Atomic uint32_t writes_failed;
  _Atomic uint32_t truncates_failed;
  _Atomic uint32_t fsyncs_held;
  /* What flock fails with: 0 where it does not. */
  _Atomic uint32_t lock_errno;
  uint32_t unused[2];
  char suffix[SUFFIX_BYTES];
  char folder[FOLDER_BYTES];
};
_Static_assert(sizeof(struct control) == PAGE_BYTES, "one page");

static struct control *control;

__attribute__((constructor)) static void attach(void) {
  const char *path = getenv("DENOKV_FAULT_CONTROL");
  if (!path) return;
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  void *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (page == MAP_FAILED) return;
  if (((struct control *)page)->magic == MAGIC) control = page;
}

/* Whether the file is below the folder and has the suffix asked for. */
static int is_ours(int fd) {
  char link[32], path[PAGE_BYTES];
  int saved = errno;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path);
  errno = saved;
  if (length <= 0) return 0;
  size_t folder = control->folder_length;
  size_t suffix = atomic_load(&control->suffix_length);
  if ((size_t)length <= folder || path[folder] != '/') return 0;
  if (memcmp(path, control->folder, folder) != 0) return 0;
  if (suffix > (size_t)length || suffix > SUFFIX_BYTES) return 0;
  return memcmp(path + length - suffix, control->suffix, suffix) == 0;
}

/* Takes one of the failures that are left; false where there is none. */
static int take(_Atomic int32_t *failures) {
  int32_t left = atomic_load(failures);
  while (left > 0) {
    if (atomic_compare_exchange_weak(failures, &left, left - 1)) return 1;
  }
  return left < 0;
}

static void sleep_us(uint32_t us) {
  struct timespec left = {us / 1000000, (long)(us % 1000000) * 1000};
  int saved = errno;
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
  errno = saved;
}

/* Before the real call: whether this fsync has to fail. */
static int fsync_fails(int fd) {
  if (!control || !is_ours(fd)) return 0;
  atomic_fetch_add(&control->fsyncs, 1);
  if (atomic_load(&control->hold_fsync)) {
    atomic_fetch_add(&control->fsyncs_held, 1);
    while (atomic_load(&control->hold_fsync)) sleep_us(200);
    atomic_fetch_sub(&control->fsyncs_held, 1);
  }
  uint32_t delay_us = atomic_load(&control->fsync_delay_us);
  if (delay_us) sleep_us(delay_us);
  if (!take(&control->fsync_failures)) return 0;
  atomic_fetch_add(&control->fsyncs_failed, 1);
  errno = EIO;
  return 1;
}

static int write_fails(int fd) {
  if (!control || atomic_load(&control->write_failures) == 0) return 0;
  if (!is_ours(fd) || !take(&control->write_failures)) return 0;
  atomic_fetch_add(&control->writes_failed, 1);
  errno = ENOSPC;
  return 1;
}

static int truncate_fails(int fd) {
  if (!control || atomic_load(&control->truncate_failures) == 0) return 0;
  if (!is_ours(fd) || !take(&control->truncate_failures)) return 0;
  atomic_fetch_add(&control->truncates_failed, 1);
  errno = EIO;
  return 1;
}

/*
 * The C library's own function, found at the first call: other libraries may
 * write before our constructor has run. Two threads finding it at once store
 * the same pointer.
 */
#define REAL(name)                                              \
  static _Atomic(void *) found;                                 \
  void *real = atomic_load_explicit(&found, memory_order_relaxed); \
  if (!real) {                                                  \
    real = dlsym(RTLD_NEXT, #name);                             \
    atomic_store_explicit(&found, real, memory_order_relaxed);  \
  }

int fsync(int fd) {
  if (fsync_fails(fd)) return -1;
  REAL(fsync)
  return ((int (*)(int))real)(fd);
}

int fdatasync(int fd) {
  if (fsync_fails(fd)) return -1;
  REAL(fdatasync)
  return ((int (*)(int))real)(fd);
}

int flock(int fd, int operation) {
  uint32_t failure = control ? atomic_load(&control->lock_errno) : 0;
  if (failure && is_ours(fd)) {
    errno = (int)failure;
    return -1;
  }
  REAL(flock)
  return ((int (*)(int, int))real)(fd, operation);
}

ssize_t write(int fd, const void *data, size_t count) {
  if (write_fails(fd)) return -1;
  REAL(write)
  return ((ssize_t(*)(int, const void *, size_t))real)(fd, data, count);
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t at) {
  if (write_fails(fd)) return -1;
  REAL(pwrite)
  return ((ssize_t(*)(int, const void *, size_t, off_t))real)(fd, data, count, at);
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t at) {
  if (write_fails(fd)) return -1;
  REAL(pwrite64)
  return ((ssize_t(*)(int, const void *, size_t, off64_t))real)(fd, data, count, at);
}

int ftruncate(int fd, off_t length) {
  if (truncate_fails(fd)) return -1;
  REAL(ftruncate)
  return ((int (*)(int, off_t))real)(fd, length);
}

int ftruncate64(int fd, off64_t length) {
  if (truncate_fails(fd)) return -1;
  REAL(ftruncate64)
  return ((int (*)(int, off64_t))real)(fd, length);
}
