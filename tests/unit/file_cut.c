/* SPDX-License-Identifier: BSD-3-Clause
 *
 * file_cut.c - a file whose power can be cut (file_cut.h).
 *
 * What the process sees is in real files; what the medium holds is in memory beside
 * it.  Of the old file that a rename replaced both are in memory alone.
 */
#include "file_cut.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILE_SECTOR  512u
#define FILE_MAX     ((size_t)256 << 10)
#define FILE_SECTORS (FILE_MAX / FILE_SECTOR)
#define FILE_FDS     1024

struct file_inode {
    uint8_t now[FILE_MAX], durable[FILE_MAX];
    size_t len, durable_len;
    unsigned errors; /* flushes that failed */
    bool dirty[FILE_SECTORS];
    bool lost[FILE_SECTORS]; /* a flush failed: the kernel takes them for clean */
};

enum { FILE_NONE = -1, FILE_FOLDER = -2 };

static pthread_mutex_t file_lock = PTHREAD_MUTEX_INITIALIZER;
static cut_step_fn *file_step_fn;
static struct cut_control *file_control;
static int file_errno = EIO;
static char file_folder[160], file_log[192], file_new[192];
/* `log` before and after a rename, and `log.new`; rename and its flush turn them round. */
static struct file_inode file_inodes[3];
static int file_name_durable = FILE_NONE, file_name_now = FILE_NONE, file_name_new = FILE_NONE;
static int file_fds[FILE_FDS]; /* inode + 1; FILE_FOLDER; 0: not ours */
static unsigned file_told[FILE_FDS]; /* of the errors: each descriptor learns of all once */

#define FILE_REAL(ret, name, ...)  \
    ret __real_##name(__VA_ARGS__); \
    ret __wrap_##name(__VA_ARGS__)

// NOLINTBEGIN(bugprone-reserved-identifier): the linker's names
FILE_REAL(int, open64, const char *path, int flags, ...);
FILE_REAL(int, openat64, int folder, const char *name, int flags, ...);
FILE_REAL(int, close, int fd);
FILE_REAL(ssize_t, pwrite64, int fd, const void *bytes, size_t len, off_t offset);
FILE_REAL(ssize_t, pwritev64v2, int fd, const struct iovec *iov, int count, off_t offset, int flags);
FILE_REAL(int, ftruncate64, int fd, off_t len);
FILE_REAL(int, fsync, int fd);
FILE_REAL(int, fdatasync, int fd);
FILE_REAL(int, renameat, int from_folder, const char *from, int to_folder, const char *to);
// NOLINTEND(bugprone-reserved-identifier)

static void
file_must(bool holds)
{
    if (!holds)
        abort();
}

static bool
file_chance(void)
{
    uint64_t z = file_control->random += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return ((z ^ (z >> 31)) & 1) != 0;
}

void
file_cut_use(cut_step_fn *step, struct cut_control *control)
{
    file_step_fn = step;
    file_control = control;
}

void
file_cut_error(int code)
{
    file_errno = code;
}

void
file_cut_new(const char *folder)
{
    (void)snprintf(file_folder, sizeof(file_folder), "%s", folder);
    (void)snprintf(file_log, sizeof(file_log), "%s/log", folder);
    (void)snprintf(file_new, sizeof(file_new), "%s/log.new", folder);
    file_name_durable = file_name_now = file_name_new = FILE_NONE;
}

/* --- the medium -------------------------------------------------------------------------- */

static void
file_flush(struct file_inode *f, size_t from, size_t to)
{
    for (size_t s = from / FILE_SECTOR; s * FILE_SECTOR < to; s++) {
        if (f->dirty[s])
            memcpy(f->durable + s * FILE_SECTOR, f->now + s * FILE_SECTOR, FILE_SECTOR);
        f->dirty[s] = false;
    }
    f->durable_len = f->len; /* what is needed to read the data is flushed with it */
}

/* A flush fails: some of it may be on the medium, and no later flush writes the rest. */
static void
file_lose(struct file_inode *f, size_t from, size_t to)
{
    for (size_t s = from / FILE_SECTOR; s * FILE_SECTOR < to; s++) {
        f->lost[s] = f->lost[s] || f->dirty[s];
        f->dirty[s] = false;
    }
    f->errors++;
}

static void
file_store(struct file_inode *f, const uint8_t *bytes, size_t len, size_t offset)
{
    file_must(offset + len <= FILE_MAX); /* the test's log-size */
    memcpy(f->now + offset, bytes, len);
    for (size_t s = offset / FILE_SECTOR; s * FILE_SECTOR < offset + len; s++) {
        f->dirty[s] = true;
        f->lost[s] = false;
    }
    if (f->len < offset + len)
        f->len = offset + len;
}

void
file_cut_power(bool died)
{
    struct file_inode *f;
    int fd;

    if (died || file_name_now == FILE_NONE)
        return;
    if (file_name_durable != file_name_now && file_chance())
        file_name_now = file_name_durable;
    file_name_durable = file_name_now;
    if (file_chance())
        (void)unlink(file_new);
    file_name_new = FILE_NONE;
    (void)unlink(file_log);
    if (file_name_now == FILE_NONE)
        return;
    f = &file_inodes[file_name_now];
    for (size_t s = 0; s < FILE_SECTORS; s++) {
        f->dirty[s] = f->dirty[s] || f->lost[s];
        f->lost[s] = false;
        if (f->dirty[s] && file_chance())
            memcpy(f->now + s * FILE_SECTOR, f->durable + s * FILE_SECTOR, FILE_SECTOR);
    }
    if (file_chance())
        f->len = f->durable_len;
    file_flush(f, 0, FILE_MAX); /* it lies on the medium now */
    fd = __real_open64(file_log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    file_must(fd >= 0 && __real_pwrite64(fd, f->now, f->len, 0) == (ssize_t)f->len);
    (void)__real_close(fd);
}

/* --- the calls ------------------------------------------------------------------------------ */

static struct file_inode *
file_of(int fd)
{
    return fd >= 0 && fd < FILE_FDS && file_fds[fd] > 0 ? &file_inodes[file_fds[fd] - 1] : NULL;
}

/* -1 and an errno when the power is off, or goes at this step. */
static int
file_step(void)
{
    if (!atomic_load(&file_control->dead) && !file_step_fn())
        return 0;
    errno = file_errno;
    return -1;
}

/* An inode that no name leads to. */
static int
file_inode_new(void)
{
    for (int i = 0; i < 3; i++)
        if (i != file_name_durable && i != file_name_now) {
            memset(&file_inodes[i], 0, sizeof(file_inodes[i]));
            return i;
        }
    return FILE_NONE;
}

/* FD is now that of PATH. */
static void
file_opened(int fd, const char *path)
{
    if (fd < 0 || fd >= FILE_FDS)
        return;
    if (strcmp(path, file_new) == 0)
        file_fds[fd] = 1 + (file_name_new = file_inode_new());
    else if (strcmp(path, file_log) == 0)
        file_fds[fd] = 1 + file_name_now;
    else
        file_fds[fd] = strcmp(path, file_folder) == 0 ? FILE_FOLDER : 0;
    if (file_fds[fd] > 0)
        file_told[fd] = file_inodes[file_fds[fd] - 1].errors;
}

int
__wrap_open64(const char *path, int flags, ...)
{
    va_list args;
    int mode, fd;

    va_start(args, flags);
    // NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): it is, in the line above
    mode = (flags & O_CREAT) != 0 ? va_arg(args, int) : 0;
    va_end(args);
    (void)pthread_mutex_lock(&file_lock);
    fd = __real_open64(path, flags, mode);
    file_opened(fd, path);
    (void)pthread_mutex_unlock(&file_lock);
    return fd;
}

static bool
file_is_folder(int fd)
{
    return fd >= 0 && fd < FILE_FDS && file_fds[fd] == FILE_FOLDER;
}

static void
file_path(int folder, const char *name, char path[192])
{
    (void)snprintf(path, 192, "%s%s%s", file_is_folder(folder) ? file_folder : "",
                   file_is_folder(folder) ? "/" : "", name);
}

int
__wrap_openat64(int folder, const char *name, int flags, ...)
{
    char path[192];
    va_list args;
    int mode, fd;

    va_start(args, flags);
    // NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): it is, in the line above
    mode = (flags & O_CREAT) != 0 ? va_arg(args, int) : 0;
    va_end(args);
    (void)pthread_mutex_lock(&file_lock);
    fd = __real_openat64(folder, name, flags, mode);
    file_path(folder, name, path);
    file_opened(fd, path);
    (void)pthread_mutex_unlock(&file_lock);
    return fd;
}

int
__wrap_close(int fd)
{
    if (fd >= 0 && fd < FILE_FDS)
        file_fds[fd] = 0;
    return __real_close(fd);
}

static ssize_t
file_write(int fd, const void *bytes, size_t len, off_t offset, bool dsync)
{
    struct file_inode *f = file_of(fd);
    ssize_t rc = -1;

    (void)pthread_mutex_lock(&file_lock);
    if (file_step() == 0) {
        file_store(f, bytes, len, (size_t)offset);
        rc = __real_pwrite64(fd, bytes, len, offset);
        if (rc == (ssize_t)len && file_step() != 0) {
            rc = -1;
            if (dsync)
                file_lose(f, (size_t)offset, (size_t)offset + len);
        }
        if (rc == (ssize_t)len && dsync) {
            file_flush(f, (size_t)offset, (size_t)offset + len);
            if (file_step() != 0)
                rc = -1;
        }
        if (rc == (ssize_t)len && dsync && file_told[fd] != f->errors) {
            errno = file_errno;
            rc = -1;
        }
    }
    (void)pthread_mutex_unlock(&file_lock);
    return rc;
}

ssize_t
__wrap_pwrite64(int fd, const void *bytes, size_t len, off_t offset)
{
    return file_of(fd) == NULL ? __real_pwrite64(fd, bytes, len, offset)
                               : file_write(fd, bytes, len, offset, false);
}

ssize_t
__wrap_pwritev64v2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    if (file_of(fd) == NULL)
        return __real_pwritev64v2(fd, iov, count, offset, flags);
    file_must(count == 1);
    return file_write(fd, iov->iov_base, iov->iov_len, offset, (flags & RWF_DSYNC) != 0);
}

int
__wrap_ftruncate64(int fd, off_t len)
{
    struct file_inode *f = file_of(fd);
    int rc;

    if (f == NULL)
        return __real_ftruncate64(fd, len);
    (void)pthread_mutex_lock(&file_lock);
    rc = file_step();
    if (rc == 0) {
        f->len = (size_t)len;
        memset(f->now + f->len, 0, FILE_MAX - f->len);
        rc = __real_ftruncate64(fd, len);
    }
    (void)pthread_mutex_unlock(&file_lock);
    return rc;
}

int
__wrap_fsync(int fd)
{
    struct file_inode *f = file_of(fd);
    int rc = -1;

    if (f == NULL && !file_is_folder(fd))
        return __real_fsync(fd);
    (void)pthread_mutex_lock(&file_lock);
    if (file_step() == 0) {
        if (f != NULL)
            file_flush(f, 0, FILE_MAX);
        else
            file_name_durable = file_name_now;
        rc = file_step();
    } else if (f != NULL) {
        file_lose(f, 0, FILE_MAX);
    }
    if (f != NULL && file_told[fd] != f->errors) { /* perhaps that of another descriptor */
        file_told[fd] = f->errors;
        errno = file_errno;
        rc = -1;
    }
    (void)pthread_mutex_unlock(&file_lock);
    return rc;
}

int
__wrap_fdatasync(int fd)
{
    return file_of(fd) == NULL ? __real_fdatasync(fd) : __wrap_fsync(fd);
}

int
__wrap_renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    char path[192];
    int rc;

    file_path(to_folder, to, path);
    if (strcmp(path, file_log) != 0)
        return __real_renameat(from_folder, from, to_folder, to);
    (void)pthread_mutex_lock(&file_lock);
    rc = file_step();
    if (rc == 0)
        rc = __real_renameat(from_folder, from, to_folder, to);
    if (rc == 0) {
        file_name_now = file_name_new;
        file_name_new = FILE_NONE;
        rc = file_step();
    }
    (void)pthread_mutex_unlock(&file_lock);
    return rc;
}
