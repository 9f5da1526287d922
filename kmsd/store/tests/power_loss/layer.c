/* Preloaded into a victim: writes down every change that the victim makes below one folder, in
 * order, with data, so that a test can work out what a power loss would have left.
 *
 * KMS_POWER_FOLDER names the folder (absolute, no symbolic link in it), KMS_POWER_TRACE the file to
 * write to, outside of it. The kernel keeps the trace when the victim is killed.
 *
 * A change and its record are made under one lock, so their orders agree. A sync has two records:
 * what was written down before its beginning is durable once its end is. What the layer cannot
 * follow (shared mappings, copied descriptors, synchronous files, symbolic links) is a record of
 * its own, at which the test fails.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind {
    CREATE = 1, MKDIR, WRITE, RESIZE, RENAME, UNLINK, LINK, SYNC_BEGIN, SYNC_END, RANGE, UNSUPPORTED
};

struct head {
    uint32_t magic, kind;
    uint64_t a, b, c;
    uint32_t first_bytes, second_bytes;
};

#define MAGIC 0x52574f50u
#define FDS_MAX 65536

static char folder[PATH_MAX];
static size_t folder_bytes;
static int trace = -1;
static uint64_t syncs;
static uint64_t inode_of[FDS_MAX];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("KMS_POWER_FOLDER"), *to = getenv("KMS_POWER_TRACE");
    if (!path || !to || strlen(path) >= sizeof folder) return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) abort();
    strcpy(folder, path);
    folder_bytes = strlen(folder);
    trace = fd;
}

static void put(const char *bytes, size_t count) {
    while (count > 0) {
        ssize_t n = syscall(SYS_write, trace, bytes, count);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) abort();
        bytes += n;
        count -= (size_t)n;
    }
}

/* Call with the lock held. */
static void record(enum kind kind, uint64_t a, uint64_t b, uint64_t c,
                   const char *first, size_t first_bytes, const char *second, size_t second_bytes) {
    int saved = errno;
    struct head head = {MAGIC, kind, a, b, c, (uint32_t)first_bytes, (uint32_t)second_bytes};
    put((const char *)&head, sizeof head);
    put(first, first_bytes);
    put(second, second_bytes);
    errno = saved;
}

static void unsupported(const char *what) {
    record(UNSUPPORTED, 0, 0, 0, what, strlen(what), "", 0);
}

static int is_below(const char *path) {
    return trace >= 0 && strncmp(path, folder, folder_bytes) == 0 &&
           (path[folder_bytes] == '/' || path[folder_bytes] == 0);
}

/* The absolute path of a name; 0 when it is not below the folder. */
static int find(int at, const char *path, char *full) {
    if (trace < 0 || !path) return 0;
    char base[PATH_MAX] = "", link[64];
    if (path[0] != '/') {
        if (at == AT_FDCWD) {
            if (syscall(SYS_getcwd, base, sizeof base) < 0) return 0;
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", at);
            ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, base, sizeof base - 1);
            if (n < 0) return 0;
            base[n] = 0;
        }
    }
    int n = snprintf(full, PATH_MAX, "%s%s%s", base, path[0] == '/' ? "" : "/", path);
    return n > 0 && n < PATH_MAX && is_below(full);
}

static uint64_t inode(int fd) {
    return fd >= 0 && fd < FDS_MAX ? __atomic_load_n(&inode_of[fd], __ATOMIC_ACQUIRE) : 0;
}

static uint64_t size_of(int fd) {
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
}

/* ---- names ---- */

static int open_at(int at, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    if (!find(at, path, full)) return (int)syscall(SYS_openat, at, path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat st;
    int existed = syscall(SYS_newfstatat, AT_FDCWD, full, &st, AT_SYMLINK_NOFOLLOW) == 0;
    int fd = (int)syscall(SYS_openat, at, path, flags, mode);
    if (fd >= 0) {
        if (fd >= FDS_MAX || fstat(fd, &st) != 0) abort();
        if (!existed) record(CREATE, st.st_ino, 0, 0, full, strlen(full), "", 0);
        else if (flags & O_TRUNC) record(RESIZE, st.st_ino, 0, 0, "", 0, "", 0);
        if ((flags & O_DSYNC) || (flags & O_TMPFILE) == O_TMPFILE) unsupported("open flags");
        if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))
            __atomic_store_n(&inode_of[fd], st.st_ino, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(flags, mode)                                        \
    mode_t mode = 0;                                             \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                     \
        va_list rest;                                            \
        va_start(rest, flags);                                   \
        mode = va_arg(rest, mode_t);                             \
        va_end(rest);                                            \
    }

int open(const char *path, int flags, ...) { MODE(flags, mode) return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, mode) return open_at(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags, mode) return open_at(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags, mode) return open_at(at, path, flags, mode); }
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd) {
    if (inode(fd)) __atomic_store_n(&inode_of[fd], 0, __ATOMIC_RELEASE);
    return (int)syscall(SYS_close, fd);
}

int mkdirat(int at, const char *path, mode_t mode) {
    char full[PATH_MAX];
    if (!find(at, path, full)) return (int)syscall(SYS_mkdirat, at, path, mode);
    pthread_mutex_lock(&lock);
    struct stat st;
    int done = (int)syscall(SYS_mkdirat, at, path, mode);
    if (done == 0) {
        if (syscall(SYS_newfstatat, AT_FDCWD, full, &st, AT_SYMLINK_NOFOLLOW) != 0) abort();
        record(MKDIR, st.st_ino, 0, 0, full, strlen(full), "", 0);
    }
    pthread_mutex_unlock(&lock);
    return done;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    char a[PATH_MAX], b[PATH_MAX];
    int from_below = find(from_at, from, a), to_below = find(to_at, to, b);
    if (!from_below && !to_below)
        return (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    if (done == 0) {
        if (!from_below || !to_below || (flags & ~(unsigned)RENAME_NOREPLACE)) unsupported("rename");
        record(RENAME, 0, 0, 0, a, strlen(a), b, strlen(b));
    }
    pthread_mutex_unlock(&lock);
    return done;
}
int renameat(int from_at, const char *from, int to_at, const char *to) { return renameat2(from_at, from, to_at, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int at, const char *path, int flags) {
    char full[PATH_MAX];
    if (!find(at, path, full)) return (int)syscall(SYS_unlinkat, at, path, flags);
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_unlinkat, at, path, flags);
    if (done == 0) record(UNLINK, 0, 0, 0, full, strlen(full), "", 0);
    pthread_mutex_unlock(&lock);
    return done;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    int done = unlink(path);
    return done != 0 && errno == EISDIR ? rmdir(path) : done;
}

int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    char a[PATH_MAX], b[PATH_MAX];
    int from_below = find(from_at, from, a), to_below = find(to_at, to, b);
    if (!from_below && !to_below) return (int)syscall(SYS_linkat, from_at, from, to_at, to, flags);
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_linkat, from_at, from, to_at, to, flags);
    if (done == 0) {
        if (!from_below || !to_below) unsupported("link");
        record(LINK, 0, 0, 0, a, strlen(a), b, strlen(b));
    }
    pthread_mutex_unlock(&lock);
    return done;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int symlinkat(const char *target, int at, const char *path) {
    char full[PATH_MAX];
    if (find(at, path, full)) {
        pthread_mutex_lock(&lock);
        unsupported("symlink");
        pthread_mutex_unlock(&lock);
    }
    return (int)syscall(SYS_symlinkat, target, at, path);
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }

/* ---- content ---- */

/* Call with the lock held, after `count` bytes went to `offset`. */
static void wrote(int fd, off_t offset, const struct iovec *parts, int parts_count, ssize_t count) {
    uint64_t size = size_of(fd);
    for (int i = 0; i < parts_count && count > 0; i++) {
        size_t bytes = parts[i].iov_len < (size_t)count ? parts[i].iov_len : (size_t)count;
        record(WRITE, inode(fd), (uint64_t)offset, size, parts[i].iov_base, bytes, "", 0);
        offset += (off_t)bytes;
        count -= (ssize_t)bytes;
    }
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    unsigned long low = (unsigned long)offset;
    if (!inode(fd)) return syscall(SYS_pwritev, fd, parts, count, low, 0UL);
    pthread_mutex_lock(&lock);
    ssize_t n = syscall(SYS_pwritev, fd, parts, count, low, 0UL);
    if (n > 0) wrote(fd, offset, parts, count, n);
    pthread_mutex_unlock(&lock);
    return n;
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset) { return pwritev(fd, parts, count, offset); }
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    if (inode(fd) && flags) {
        pthread_mutex_lock(&lock);
        unsupported("pwritev2 flags");
        pthread_mutex_unlock(&lock);
    }
    return pwritev(fd, parts, count, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    if (!inode(fd)) return syscall(SYS_pwrite64, fd, bytes, count, offset);
    struct iovec part = {(void *)bytes, count};
    return pwritev(fd, &part, 1, offset);
}
ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t offset) { return pwrite(fd, bytes, count, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (!inode(fd)) return syscall(SYS_writev, fd, parts, count);
    pthread_mutex_lock(&lock);
    ssize_t n = syscall(SYS_writev, fd, parts, count);
    if (n > 0) wrote(fd, lseek(fd, 0, SEEK_CUR) - n, parts, count, n);
    pthread_mutex_unlock(&lock);
    return n;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    if (!inode(fd)) return syscall(SYS_write, fd, bytes, count);
    struct iovec part = {(void *)bytes, count};
    return writev(fd, &part, 1);
}

int ftruncate(int fd, off_t size) {
    if (!inode(fd)) return (int)syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_ftruncate, fd, size);
    if (done == 0) record(RESIZE, inode(fd), (uint64_t)size, 0, "", 0, "", 0);
    pthread_mutex_unlock(&lock);
    return done;
}
int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

int truncate(const char *path, off_t size) {
    int fd = open_at(AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0) return -1;
    int done = ftruncate(fd, size);
    close(fd);
    return done;
}
int truncate64(const char *path, off_t size) { return truncate(path, size); }

int fallocate(int fd, int mode, off_t offset, off_t bytes) {
    if (!inode(fd)) return (int)syscall(SYS_fallocate, fd, mode, offset, bytes);
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_fallocate, fd, mode, offset, bytes);
    if (done == 0 && mode != 0) unsupported("fallocate mode");
    if (done == 0) record(RESIZE, inode(fd), size_of(fd), 0, "", 0, "", 0);
    pthread_mutex_unlock(&lock);
    return done;
}
int fallocate64(int fd, int mode, off_t offset, off_t bytes) { return fallocate(fd, mode, offset, bytes); }
int posix_fallocate(int fd, off_t offset, off_t bytes) { return fallocate(fd, 0, offset, bytes) == 0 ? 0 : errno; }
int posix_fallocate64(int fd, off_t offset, off_t bytes) { return posix_fallocate(fd, offset, bytes); }

/* ---- syncs ---- */

static int synced(long call, int fd) {
    uint64_t of = inode(fd);
    if (!of) return (int)syscall(call, fd);
    pthread_mutex_lock(&lock);
    uint64_t number = ++syncs;
    /* The size tells of room that was made by a system call past this layer. */
    record(SYNC_BEGIN, number, of, size_of(fd), "", 0, "", 0);
    pthread_mutex_unlock(&lock);
    int done = (int)syscall(call, fd);
    if (done == 0) {
        pthread_mutex_lock(&lock);
        record(SYNC_END, number, 0, 0, "", 0, "", 0);
        pthread_mutex_unlock(&lock);
    }
    return done;
}
int fsync(int fd) { return synced(SYS_fsync, fd); }
int fdatasync(int fd) { return synced(SYS_fdatasync, fd); }

/* It promises nothing: neither the file's size nor the device's cache (sync_file_range(2)). */
int sync_file_range(int fd, off_t offset, off_t bytes, unsigned flags) {
    if (inode(fd)) {
        pthread_mutex_lock(&lock);
        record(RANGE, inode(fd), 0, 0, "", 0, "", 0);
        pthread_mutex_unlock(&lock);
    }
    return (int)syscall(SYS_sync_file_range, fd, offset, bytes, flags);
}

/* ---- what is not followed ---- */

static void refuse(int fd, const char *what) {
    if (!inode(fd)) return;
    pthread_mutex_lock(&lock);
    unsupported(what);
    pthread_mutex_unlock(&lock);
}

void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) {
    if (fd >= 0 && (flags & MAP_SHARED) && (protection & PROT_WRITE)) refuse(fd, "shared mapping");
    return (void *)syscall(SYS_mmap, at, bytes, protection, flags, fd, offset);
}
void *mmap64(void *at, size_t bytes, int protection, int flags, int fd, off_t offset) { return mmap(at, bytes, protection, flags, fd, offset); }
int msync(void *at, size_t bytes, int flags) { return (int)syscall(SYS_msync, at, bytes, flags); }

int dup(int fd) { refuse(fd, "dup"); return (int)syscall(SYS_dup, fd); }
int dup2(int fd, int to) { refuse(fd, "dup2"); return (int)syscall(SYS_dup3, fd, to, 0); }
int dup3(int fd, int to, int flags) { refuse(fd, "dup3"); return (int)syscall(SYS_dup3, fd, to, flags); }

int fcntl(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    unsigned long argument = va_arg(rest, unsigned long);
    va_end(rest);
    if (command == F_DUPFD || command == F_DUPFD_CLOEXEC) refuse(fd, "fcntl F_DUPFD");
    return (int)syscall(SYS_fcntl, fd, command, argument);
}
int fcntl64(int fd, int command, ...) {
    va_list rest;
    va_start(rest, command);
    unsigned long argument = va_arg(rest, unsigned long);
    va_end(rest);
    return fcntl(fd, command, argument);
}

ssize_t copy_file_range(int from, off_t *a, int to, off_t *b, size_t bytes, unsigned flags) {
    refuse(to, "copy_file_range");
    return syscall(SYS_copy_file_range, from, a, to, b, bytes, flags);
}
ssize_t sendfile(int to, int from, off_t *offset, size_t bytes) {
    refuse(to, "sendfile");
    return syscall(SYS_sendfile, to, from, offset, bytes);
}
ssize_t sendfile64(int to, int from, off_t *offset, size_t bytes) { return sendfile(to, from, offset, bytes); }
