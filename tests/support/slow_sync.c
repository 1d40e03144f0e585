/*
 * A preloaded library (LD_PRELOAD) between a program and its disk. It counts what is asked of the disk, makes syncs
 * slower, lets chosen calls fail, fills the disk, moves its clocks, and writes down everything that a power cut could
 * undo.
 *
 *   cc -shared -fPIC -O2 -o slow_sync.so slow_sync.c
 *
 * Environment
 *   OTTLA_SHIM_SYNC_DELAY_US=N  sleep N us after each sync. Each caller sleeps on its own, so concurrent syncs
 *                               overlap, as they do in a device that takes several commands at once.
 *   OTTLA_SHIM_SKIP_SYNC=1      syncs succeed at once and do nothing: for a run whose disk is thrown away.
 *   OTTLA_SHIM_CONTROL=FILE     a page shared with the driver: `struct control` below, created by the driver.
 *   OTTLA_SHIM_DIR=DIR          absolute, without symlinks: faults and the log below concern only files under it.
 *   OTTLA_SHIM_LOG=FILE         outside DIR: append every change under DIR, in the format below.
 *
 * The log is a sequence of
 *
 *   | op u32 | path length u32 | offset u64 | data length u64 | path | data |        (little-endian)
 *
 *   op            offset          data
 *   1 create                                     open with O_CREAT; the file may have existed
 *   2 write       file position   bytes          what the kernel took, which may be less than was asked
 *   3 truncate    new length
 *   4 sync begin  thread id                      of a file or a directory
 *   5 sync end    thread id                      what was written before this thread's `begin` is now durable
 *   6 sync lost   thread id                      it failed: what was written before `begin` will never be durable,
 *                                                not even by a later sync (Linux marks the pages clean)
 *   7 rename                      new path
 *   8 unlink                                     a file or an empty directory
 *   9 mkdir
 *
 * A change is logged after it was made and before its call returns, so a change that happens before a sync stands
 * before that sync's `begin`. A change whose record is missing (the process was killed in between) was not durable.
 *
 * A fault is armed for some kinds of calls together: the Nth of them from now on fails with a chosen errno, or moves
 * only half of its bytes, once or from then on. A failed sync is not made; nor is anything else that fails.
 *
 * What it does not see: mmap, and files filled by sendfile. 64-bit Linux only: the real calls are made by
 * syscall(2), which needs no search for the next library's symbol.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(long) == 8, "the raw calls below pass 64-bit offsets in one register");

/* What may fail. A write over bytes that are there needs no room; any other appends. */
enum kind { K_APPEND, K_OVERWRITE, K_SYNC, K_CREATE, K_OPEN, K_MKDIR, K_RENAME, K_UNLINK, K_TRUNCATE, K_READ, K_SEND, KINDS };

/* Shared with tests/support/shim.rs: words of 64 bits. The first five count, as do the last; the rest are knobs. */
struct control {
    _Atomic uint64_t syncs;         /* of files */
    _Atomic uint64_t directory_syncs;
    _Atomic uint64_t sync_ns;       /* spent in real syncs, summed over threads */
    _Atomic uint64_t writes;        /* calls, under DIR */
    _Atomic uint64_t write_bytes;   /* ditto */
    _Atomic uint64_t sync_delay_us;
    _Atomic uint64_t room;          /* N: when files under DIR have grown by N - 1 more bytes the disk is full; 0: never */
    _Atomic int64_t wall_ms;        /* CLOCK_REALTIME is ahead by so much */
    _Atomic int64_t boot_ms;        /* ditto CLOCK_BOOTTIME; never CLOCK_MONOTONIC, which threads wait by */
    _Atomic uint64_t fault_kinds;   /* a bit for each kind that the fault concerns */
    _Atomic uint64_t fault_turn;    /* N: the Nth call of these kinds from now on fails; 0: none */
    _Atomic uint64_t fault_errno;   /* with this; 0: it reads, writes or sends but half */
    _Atomic uint64_t fault_stays;   /* not 0: and so do all after it */
    _Atomic uint64_t faults;        /* calls that failed so */
    _Atomic uint64_t calls[KINDS];
};

/* Slices a watched write takes at most: a short write is legal, and threads' stacks may be small. */
enum { SLICES_MAX = 256 };

enum op { CREATE = 1, WRITE, TRUNCATE, SYNC_BEGIN, SYNC_END, SYNC_LOST, RENAME, UNLINK, MKDIR };

static struct control own;
static struct control *control = &own;
static const char *directory;
static size_t directory_len;
static int log_fd = -1, skip_sync;

__attribute__((constructor)) static void start(void) {
    const char *shared = getenv("OTTLA_SHIM_CONTROL"), *log = getenv("OTTLA_SHIM_LOG");
    const char *delay = getenv("OTTLA_SHIM_SYNC_DELAY_US");
    skip_sync = getenv("OTTLA_SHIM_SKIP_SYNC") != NULL;
    if (shared) {
        int fd = syscall(SYS_openat, AT_FDCWD, shared, O_RDWR | O_CLOEXEC, 0);
        void *page = mmap(NULL, sizeof own, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (fd < 0 || page == MAP_FAILED) {
            perror(shared);
            _exit(127);
        }
        control = page;
        close(fd);
    }
    if (delay) control->sync_delay_us = strtoull(delay, NULL, 10);
    if (log) {
        log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        if (log_fd < 0) {
            perror(log);
            _exit(127);
        }
    }
    directory = getenv("OTTLA_SHIM_DIR");
    if (directory) directory_len = strlen(directory);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    int64_t ahead_ms = clock == CLOCK_REALTIME ? control->wall_ms : clock == CLOCK_BOOTTIME ? control->boot_ms : 0;
    if (result == 0 && ahead_ms != 0) {
        int64_t ms = now->tv_sec * 1000 + now->tv_nsec / 1000000 + ahead_ms;
        now->tv_nsec = now->tv_nsec % 1000000 + ms % 1000 * 1000000;
        now->tv_sec = ms / 1000;
    }
    return result;
}

static int watched(const char *path) {
    return directory && strncmp(path, directory, directory_len) == 0
        && (path[directory_len] == '/' || path[directory_len] == 0);
}

/* The path of an open descriptor, if that is under DIR. An unlinked file's ends in " (deleted)": it has no name. */
static int path_of(int fd, char path[PATH_MAX]) {
    char link[40];
    if (!directory) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return watched(path) && !(n > 10 && strcmp(path + n - 10, " (deleted)") == 0);
}

/* The absolute form of `name`, which is relative to the directory `at`, if that is under DIR. */
static int path_at(int at, const char *name, char path[PATH_MAX]) {
    char link[40];
    if (!directory) return 0;
    ssize_t n = 0;
    if (name[0] != '/') {
        if (at == AT_FDCWD) strcpy(link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        n = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 2);
        if (n < 0) return 0;
        path[n++] = '/';
    }
    if (n + strlen(name) >= PATH_MAX) return 0;
    strcpy(path + n, name);
    return watched(path);
}

/* One record, by one append, so that threads do not mix. The caller's errno survives. */
static void note(enum op op, const char *path, uint64_t offset, const struct iovec *data, int count) {
    if (log_fd < 0) return;
    int saved = errno;
    struct { uint32_t op, path_len; uint64_t offset, data_len; } head = { op, strlen(path), offset, 0 };
    struct iovec all[SLICES_MAX + 2];
    for (int i = 0; i < count; i++) {
        head.data_len += data[i].iov_len;
        all[i + 2] = data[i];
    }
    all[0] = (struct iovec){ &head, sizeof head };
    all[1] = (struct iovec){ (void *)path, head.path_len };
    if (syscall(SYS_writev, log_fd, all, count + 2) != (long)(sizeof head + head.path_len + head.data_len)) {
        static const char complaint[] = "slow_sync: the log could not be written\n";
        syscall(SYS_write, 2, complaint, sizeof complaint - 1);
        _exit(127);
    }
    errno = saved;
}

/* Cuts a gather list to `len` bytes; returns the slices left. */
static int cut(struct iovec *slices, int count, size_t len) {
    int i = 0;
    for (; i < count && len > 0; i++) {
        if (slices[i].iov_len > len) slices[i].iov_len = len;
        len -= slices[i].iov_len;
    }
    return i;
}

/* Counts a call. If it is the armed fault's turn, errno is what it fails with: 0 stands for half the bytes. */
static int fails(enum kind kind) {
    control->calls[kind] += 1;
    if (!(control->fault_kinds >> kind & 1)) return 0;
    uint64_t left = control->fault_turn;
    while (left != 0 && !(left == 1 && control->fault_stays)
           && !atomic_compare_exchange_weak(&control->fault_turn, &left, left - 1)) {}
    if (left != 1) return 0;
    control->faults += 1;
    errno = control->fault_errno;
    return 1;
}

/* Whether a name is not taken: what is there already needs no room to be made. */
static int is_free(const char *path) {
    return syscall(SYS_faccessat, AT_FDCWD, path, F_OK) != 0;
}

static uint64_t size_of(int fd) {
    struct stat stat;
    return fstat(fd, &stat) == 0 ? stat.st_size : 0;
}

/* Where a write without an offset goes. */
static uint64_t position_of(int fd, uint64_t size) {
    if (syscall(SYS_fcntl, fd, F_GETFL) & O_APPEND) return size;
    return syscall(SYS_lseek, fd, 0L, SEEK_CUR);
}

/* All four writes. `offset` < 0: at the descriptor's own position. */
static ssize_t write_any(int fd, const struct iovec *slices, int count, off_t offset) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) {
        if (offset >= 0) return syscall(SYS_pwritev, fd, slices, count, (long)offset, 0L);
        return syscall(SYS_writev, fd, slices, count);
    }
    struct iovec mine[SLICES_MAX];
    if (count > SLICES_MAX) count = SLICES_MAX;
    size_t asked = 0;
    for (int i = 0; i < count; i++) asked += (mine[i] = slices[i]).iov_len;
    uint64_t room = control->room, size = size_of(fd);
    uint64_t from = offset >= 0 ? (uint64_t)offset : position_of(fd, size);
    if (fails(from + asked > size ? K_APPEND : K_OVERWRITE)) {
        if (errno != 0) return -1;
        count = cut(mine, count, asked = (asked + 1) / 2);
    }
    uint64_t free_bytes = (from < size ? size - from : 0) + room - 1;
    if (room != 0 && asked > free_bytes) {
        if (free_bytes == 0) {
            errno = ENOSPC;
            return -1;
        }
        count = cut(mine, count, free_bytes);
    }
    ssize_t n = offset >= 0 ? syscall(SYS_pwritev, fd, mine, count, (long)offset, 0L)
                            : syscall(SYS_writev, fd, mine, count);
    if (n <= 0) return n;
    if (room != 0 && from + n > size) control->room -= from + n - (from > size ? from : size);
    control->writes += 1;
    control->write_bytes += n;
    /* Asked afterwards, the position is right with O_APPEND too. */
    if (offset < 0) offset = syscall(SYS_lseek, fd, 0L, SEEK_CUR) - n;
    note(WRITE, path, offset, mine, cut(mine, count, n));
    return n;
}

ssize_t write(int fd, const void *bytes, size_t len) {
    if (!directory) return syscall(SYS_write, fd, bytes, len);
    struct iovec one = { (void *)bytes, len };
    return write_any(fd, &one, 1, -1);
}

ssize_t writev(int fd, const struct iovec *slices, int count) { return write_any(fd, slices, count, -1); }

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t offset) {
    struct iovec one = { (void *)bytes, len };
    return write_any(fd, &one, 1, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset) { return pwrite64(fd, bytes, len, offset); }

ssize_t pwritev64(int fd, const struct iovec *slices, int count, off64_t offset) {
    return write_any(fd, slices, count, offset);
}

ssize_t pwritev(int fd, const struct iovec *slices, int count, off_t offset) {
    return write_any(fd, slices, count, offset);
}

/* Rust's fs::copy then falls back to write, which is seen. */
ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t len, unsigned flags) {
    char path[PATH_MAX];
    if (!path_of(out, path)) return syscall(SYS_copy_file_range, in, in_at, out, out_at, len, flags);
    errno = EXDEV;
    return -1;
}

int ftruncate64(int fd, off64_t len) {
    char path[PATH_MAX];
    int known = path_of(fd, path);
    if (known && fails(K_TRUNCATE)) return -1;
    int result = syscall(SYS_ftruncate, fd, (long)len);
    if (known && result == 0) note(TRUNCATE, path, len, NULL, 0);
    return result;
}

int ftruncate(int fd, off_t len) { return ftruncate64(fd, len); }

/* Both reads. `offset` < 0: at the descriptor's own position. */
static ssize_t read_any(int fd, void *bytes, size_t len, off_t offset) {
    char path[PATH_MAX];
    if (path_of(fd, path) && fails(K_READ)) {
        if (errno != 0) return -1;
        len = (len + 1) / 2;
    }
    if (offset >= 0) return syscall(SYS_pread64, fd, bytes, len, (long)offset);
    return syscall(SYS_read, fd, bytes, len);
}

ssize_t read(int fd, void *bytes, size_t len) { return read_any(fd, bytes, len, -1); }
ssize_t pread(int fd, void *bytes, size_t len, off_t offset) { return read_any(fd, bytes, len, offset); }
ssize_t pread64(int fd, void *bytes, size_t len, off64_t offset) { return read_any(fd, bytes, len, offset); }

ssize_t sendfile64(int out, int in, off64_t *offset, size_t len) {
    char path[PATH_MAX];
    if (path_of(in, path) && fails(K_SEND)) {
        if (errno != 0) return -1;
        len = (len + 1) / 2;
    }
    return syscall(SYS_sendfile, out, in, offset, len);
}

ssize_t sendfile(int out, int in, off_t *offset, size_t len) { return sendfile64(out, in, offset, len); }

static int sync_any(long call, int fd) {
    char path[PATH_MAX];
    struct stat stat;
    struct timespec from, to;
    uint64_t thread = syscall(SYS_gettid);
    int known = path_of(fd, path), result = -1;
    if (known) note(SYNC_BEGIN, path, thread, NULL, 0);
    clock_gettime(CLOCK_MONOTONIC, &from);
    if (!(known && fails(K_SYNC))) result = skip_sync ? 0 : syscall(call, fd);
    clock_gettime(CLOCK_MONOTONIC, &to);
    int saved = errno, is_directory = fstat(fd, &stat) == 0 && S_ISDIR(stat.st_mode);
    *(is_directory ? &control->directory_syncs : &control->syncs) += 1;
    control->sync_ns += (to.tv_sec - from.tv_sec) * 1000000000LL + to.tv_nsec - from.tv_nsec;
    if (control->sync_delay_us) usleep(control->sync_delay_us);
    if (known) note(result == 0 ? SYNC_END : SYNC_LOST, path, thread, NULL, 0);
    errno = saved;
    return result;
}

int fdatasync(int fd) { return sync_any(SYS_fdatasync, fd); }

int fsync(int fd) { return sync_any(SYS_fsync, fd); }

static int open_any(int at, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    int known = path_at(at, name, path);
    if (known && fails(flags & O_CREAT && is_free(path) ? K_CREATE : K_OPEN)) return -1;
    int fd = syscall(SYS_openat, at, name, flags, mode);
    if (fd < 0 || !known) return fd;
    if (flags & O_CREAT) note(CREATE, path, 0, NULL, 0);
    if (flags & O_TRUNC) note(TRUNCATE, path, 0, NULL, 0);
    return fd;
}

#define OPEN_WITH(at, name, flags)                               \
    va_list list;                                                \
    va_start(list, flags);                                       \
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(list, mode_t) : 0; \
    va_end(list);                                                \
    return open_any(at, name, flags, mode)

int open(const char *name, int flags, ...) { OPEN_WITH(AT_FDCWD, name, flags); }
int open64(const char *name, int flags, ...) { OPEN_WITH(AT_FDCWD, name, flags); }
int openat(int at, const char *name, int flags, ...) { OPEN_WITH(at, name, flags); }
int openat64(int at, const char *name, int flags, ...) { OPEN_WITH(at, name, flags); }

DIR *opendir(const char *name) {
    int fd = open_any(AT_FDCWD, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    return fd < 0 ? NULL : fdopendir(fd);
}

int renameat(int from_at, const char *from, int to_at, const char *to) {
    char old[PATH_MAX], new[PATH_MAX];
    int known = path_at(from_at, from, old) && path_at(to_at, to, new);
    if (known && fails(K_RENAME)) return -1;
    int result = syscall(SYS_renameat2, from_at, from, to_at, to, 0);
    if (known && result == 0) note(RENAME, old, 0, &(struct iovec){ new, strlen(new) }, 1);
    return result;
}

int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

int unlinkat(int at, const char *name, int flags) {
    char path[PATH_MAX];
    int known = path_at(at, name, path);
    if (known && fails(K_UNLINK)) return -1;
    int result = syscall(SYS_unlinkat, at, name, flags);
    if (known && result == 0) note(UNLINK, path, 0, NULL, 0);
    return result;
}

int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }

int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdir(const char *name, mode_t mode) {
    char path[PATH_MAX];
    int known = path_at(AT_FDCWD, name, path);
    if (known && is_free(path) && fails(K_MKDIR)) return -1;
    int result = syscall(SYS_mkdirat, AT_FDCWD, name, mode);
    if (known && result == 0) note(MKDIR, path, 0, NULL, 0);
    return result;
}
