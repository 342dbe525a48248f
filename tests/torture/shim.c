/* Preloaded into a runner (LD_PRELOAD): the system as a test wants it. Built by shim.py.

   OUTBOX_SHIM       a file of four 64-bit numbers, mapped, so that a test changes them while the program runs:
                       [0] nanoseconds added to CLOCK_REALTIME (and to it alone)
                       [1] what fails from now on, on files under OUTBOX_SHIM_FOLDER: 0 nothing, 1 writing (ENOSPC),
                           2 syncing (EIO), 3 writing (EIO); plus 256 × how many calls go well before
                       [2] how many calls have failed
                       [3] reserved
   OUTBOX_SHIM_FOLDER  the files that are meant: those whose path begins with it
   OUTBOX_SHIM_LOG     every write, truncation and sync of those files, and every line said, in the order in which they
                       came: a write when it was done, a sync before it is begun. A record: op, length of the name, of
                       the data (32 bits each), offset (64), name, data. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *control;
static const char *folder;
static size_t folder_length;
static int log_descriptor = -1;

#define REAL(type, name, ...) \
  static type (*real)(__VA_ARGS__); \
  if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static ssize_t real_write(int fd, const void *data, size_t length) {
  REAL(ssize_t, write, int, const void *, size_t);
  return real(fd, data, length);
}

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("OUTBOX_SHIM");
  if (path) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *found = fd < 0 ? MAP_FAILED : mmap(NULL, 32, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0) close(fd);
    if (found != MAP_FAILED) control = found;
  }
  folder = getenv("OUTBOX_SHIM_FOLDER");
  folder_length = folder ? strlen(folder) : 0;
  path = getenv("OUTBOX_SHIM_LOG");
  if (path) {
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    log_descriptor = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 900);
    if (fd >= 0) close(fd);
  }
}

/* The name of a file that is meant; 0 for any other. */
static int meant(int fd, char *name, size_t room) {
  char link[64];
  if (!folder || fd == log_descriptor) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, name, room - 1);
  if (length <= 0) return 0;
  name[length] = 0;
  return !strncmp(name, folder, folder_length) && !strstr(name, "-shm");
}

static void record(char op, const char *name, int64_t offset, const void *data, size_t length) {
  if (log_descriptor < 0) return;
  char head[32];
  uint32_t op32 = op, name_length = strlen(name), data_length = length;
  memcpy(head, &op32, 4);
  memcpy(head + 4, &name_length, 4);
  memcpy(head + 8, &data_length, 4);
  memcpy(head + 12, &offset, 8);
  struct iovec parts[] = {{head, 20}, {(void *)name, name_length}, {(void *)data, length}};
  if (writev(log_descriptor, parts, 3) < 0) abort();
}

static int fails(int kind_a, int kind_b) {
  if (!control) return 0;
  int64_t now = control[1], kind = now & 255;
  if (kind != kind_a && kind != kind_b) return 0;
  if (now >= 256) {
    control[1] = now - 256;
    return 0;
  }
  control[2]++;
  errno = kind == 1 ? ENOSPC : EIO;
  return 1;
}

static ssize_t write_at(int fd, const void *data, size_t length, int64_t offset) {
  REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
  char name[512];
  int ours = (log_descriptor >= 0 || (control && control[1])) && meant(fd, name, sizeof name);
  if (ours && fails(1, 3)) return -1;
  ssize_t done = real(fd, data, length, offset);
  if (ours && done > 0) record('w', name, offset, data, done);
  return done;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return write_at(fd, data, length, offset); }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) { return write_at(fd, data, length, offset); }

ssize_t write(int fd, const void *data, size_t length) {
  char name[512];
  if (fd <= 2) {
    ssize_t done = real_write(fd, data, length);
    if (done > 0) record('s', "", 0, data, done);
    return done;
  }
  int ours = (log_descriptor >= 0 || (control && control[1])) && meant(fd, name, sizeof name);
  if (!ours) return real_write(fd, data, length);
  if (fails(1, 3)) return -1;
  int64_t offset = lseek(fd, 0, SEEK_CUR);
  ssize_t done = real_write(fd, data, length);
  if (done > 0) record('w', name, offset, data, done);
  return done;
}

static int truncated(int fd, int64_t length, int (*real)(int, off64_t)) {
  char name[512];
  int ours = (log_descriptor >= 0 || (control && control[1])) && meant(fd, name, sizeof name);
  int done = real(fd, length);
  if (ours && !done) record('t', name, length, "", 0);
  return done;
}

int ftruncate64(int fd, off64_t length) {
  REAL(int, ftruncate64, int, off64_t);
  return truncated(fd, length, real);
}

int ftruncate(int fd, off_t length) {
  REAL(int, ftruncate64, int, off64_t);
  return truncated(fd, length, real);
}

static int synced(int fd, int (*real)(int)) {
  char name[512];
  int ours = (log_descriptor >= 0 || (control && control[1])) && meant(fd, name, sizeof name);
  if (ours && fails(2, 2)) return -1;
  if (ours) record('f', name, 0, "", 0);
  return real(fd);
}

int fsync(int fd) {
  REAL(int, fsync, int);
  return synced(fd, real);
}

int fdatasync(int fd) {
  REAL(int, fdatasync, int);
  return synced(fd, real);
}

int clock_gettime(clockid_t clock, struct timespec *at) {
  REAL(int, clock_gettime, clockid_t, struct timespec *);
  int done = real(clock, at);
  if (!done && control && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    int64_t moment = (int64_t)at->tv_sec * 1000000000 + at->tv_nsec + control[0];
    at->tv_sec = moment / 1000000000;
    at->tv_nsec = moment % 1000000000;
  }
  return done;
}

int gettimeofday(struct timeval *at, void *zone) {
  struct timespec exact;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
  at->tv_sec = exact.tv_sec;
  at->tv_usec = exact.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *into) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (into) *into = exact.tv_sec;
  return exact.tv_sec;
}
