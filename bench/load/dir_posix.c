/* SPDX-License-Identifier: BSD-3-Clause
 *
 * dir_posix.c - names in a mounted folder, by system calls.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dir.h"

#define POSIX_PATH 4096

static char posix_root[POSIX_PATH / 2];

static int
posix_error(struct kvfs_error *err, const char *path)
{
    int code = errno;

    // NOLINTNEXTLINE(concurrency-mt-unsafe): glibc's is per thread
    return kvfs_error_set(err, -code, "%s%s: %s", posix_root, path, strerror(code));
}

/* What the kernel is asked for: the whole path, into BUF. */
static const char *
posix_path(const char *path, char *buf)
{
    (void)snprintf(buf, POSIX_PATH, "%s%.1024s", posix_root, path);
    return buf;
}

static int
posix_open(const char *folder, const char *engine, const char *params, struct kvfs_error *err)
{
    (void)engine;
    (void)params;
    if (strlen(folder) >= sizeof(posix_root))
        return kvfs_error_set(err, -ENAMETOOLONG, "--dir: too long");
    (void)snprintf(posix_root, sizeof(posix_root), "%s", folder);
    return access(folder, W_OK | X_OK) == 0 ? 0 : posix_error(err, "");
}

static int
posix_close(struct kvfs_error *err)
{
    (void)err;
    return 0;
}

static int
posix_create(const char *path, bool folder, struct kvfs_error *err)
{
    char buf[POSIX_PATH];
    int fd;

    if (folder)
        return mkdir(posix_path(path, buf), 0700) == 0 ? 0 : posix_error(err, path);
    fd = open(posix_path(path, buf), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return fd >= 0 && close(fd) == 0 ? 0 : posix_error(err, path);
}

static int
posix_stat(const char *path, struct kvfs_error *err)
{
    char buf[POSIX_PATH];
    struct stat st;

    return lstat(posix_path(path, buf), &st) == 0 ? 0 : posix_error(err, path);
}

static int
posix_read(const char *path, bool folder, struct kvfs_error *err)
{
    char buf[POSIX_PATH];
    int fd = open(posix_path(path, buf), O_RDONLY | O_CLOEXEC | (folder ? O_DIRECTORY : 0));

    return fd >= 0 && close(fd) == 0 ? 0 : posix_error(err, path);
}

static int
posix_list(const char *path, uint64_t *entries, struct kvfs_error *err)
{
    char buf[POSIX_PATH];
    DIR *d = opendir(posix_path(path, buf));
    struct dirent *e;
    int rc = 0;

    if (d == NULL)
        return posix_error(err, path);
    for (errno = 0; (e = readdir(d)) != NULL; errno = 0) // NOLINT(concurrency-mt-unsafe): our own
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            ++*entries;
    if (errno != 0)
        rc = posix_error(err, path);
    (void)closedir(d);
    return rc;
}

static int
posix_rename(const char *from, const char *to, struct kvfs_error *err)
{
    char old_buf[POSIX_PATH], new_buf[POSIX_PATH];

    return rename(posix_path(from, old_buf), posix_path(to, new_buf)) == 0 ? 0
                                                                         : posix_error(err, from);
}

static int
posix_remove(const char *path, bool folder, struct kvfs_error *err)
{
    char buf[POSIX_PATH];

    (void)posix_path(path, buf);
    return (folder ? rmdir(buf) : unlink(buf)) == 0 ? 0 : posix_error(err, path);
}

static int
posix_fsync(const char *path, int flags, struct kvfs_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | flags), rc = 0;

    if (fd < 0)
        return posix_error(err, "");
    if (fsync(fd) != 0)
        rc = posix_error(err, "");
    (void)close(fd);
    return rc;
}

/* As POSIX has it: a name is durable when its folder is. */
static int
posix_flush(const char *path, bool new_file, struct kvfs_error *err)
{
    char buf[POSIX_PATH];
    int rc = 0;

    (void)posix_path(path, buf);
    if (new_file)
        rc = posix_fsync(buf, 0, err);
    *strrchr(buf, '/') = '\0';
    return rc == 0 ? posix_fsync(buf, O_DIRECTORY, err) : rc;
}

static int
posix_sync(struct kvfs_error *err)
{
    int fd = open(posix_root, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

    if (fd < 0 || syncfs(fd) != 0)
        rc = posix_error(err, "");
    if (fd >= 0)
        (void)close(fd);
    return rc;
}

static int
posix_info(struct load_info *info, struct kvfs_error *err)
{
    (void)err;
    *info = (struct load_info){.version = "",
                               .caps = KVFS_CAP_PERSISTENT | KVFS_CAP_DURABLE |
                                       KVFS_CAP_MULTIPROCESS | KVFS_CAP_FORK};
    return 0;
}

const struct dir_layer dir_layer_posix = {
    .name = "posix",
    .open = posix_open,
    .close = posix_close,
    .create = posix_create,
    .stat = posix_stat,
    .read = posix_read,
    .list = posix_list,
    .rename = posix_rename,
    .remove = posix_remove,
    .flush = posix_flush,
    .sync = posix_sync,
    .settle = posix_sync,
    .info = posix_info,
};
