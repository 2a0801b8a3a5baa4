/* SPDX-License-Identifier: BSD-3-Clause
 *
 * copy_volume.c - the volume that `kvfs copy` makes: built under a temporary
 * name beside its own, TARGET.kvfs-copy-PID-N, and renamed when all is in it.
 *
 * A process that is killed leaves that folder.  Whoever makes it holds a lock
 * on it (flock) until it ends, however it ends; so the next copy to the same
 * TARGET knows what is left over, and removes it.  A folder counts as ours only
 * while its name leads to the inode that was locked: between mkdir and flock
 * another copy may have taken it for a leftover.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "copy.h"

#define COPY_TEMP_MARK  ".kvfs-copy-"
#define COPY_TEMP_TRIES 100

/* Open folder NAME in DIR and lock it; negative: it is not there, or somebody's.  A new
 * one (FRESH) is taken without a lock where the file system has none; nothing is ever
 * removed there. */
static int
copy_volume_lock(int dir, const char *name, bool fresh)
{
    struct stat by_name, by_fd;
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return -1;
    if ((flock(fd, LOCK_EX | LOCK_NB) == 0 || (fresh && errno != EWOULDBLOCK)) && fstat(fd, &by_fd) == 0 &&
        fstatat(dir, name, &by_name, AT_SYMLINK_NOFOLLOW) == 0 &&
        by_name.st_dev == by_fd.st_dev && by_name.st_ino == by_fd.st_ino)
        return fd;
    (void)close(fd);
    return -1;
}

/* Remove folder NAME in DIR, open as FD, with the files of the volume in it. */
static void
copy_volume_delete(int dir, const char *name, int fd)
{
    int again = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = again >= 0 ? fdopendir(again) : NULL;
    struct dirent *e;

    /* NOLINTNEXTLINE(concurrency-mt-unsafe): the stream is this function's own */
    while (d != NULL && (e = readdir(d)) != NULL) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            (void)unlinkat(fd, e->d_name, 0);
    }
    if (d != NULL)
        (void)closedir(d);
    else if (again >= 0)
        (void)close(again);
    (void)unlinkat(dir, name, AT_REMOVEDIR);
}

/* Does NAME look like one for the target BASE? */
static bool
copy_volume_is_temp(const char *name, const char *base)
{
    const size_t n = strlen(base), mark = strlen(COPY_TEMP_MARK);

    if (strncmp(name, base, n) != 0 || strncmp(name + n, COPY_TEMP_MARK, mark) != 0)
        return false;
    name += n + mark;
    return name[0] != '\0' && name[strspn(name, "0123456789-")] == '\0';
}

/* Remove what killed copies to the target BASE left in folder DIR. */
static void
copy_volume_collect(int dir, const char *base)
{
    int fd, again = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = again >= 0 ? fdopendir(again) : NULL;
    struct dirent *e;

    /* NOLINTNEXTLINE(concurrency-mt-unsafe): the stream is this function's own */
    while (d != NULL && (e = readdir(d)) != NULL) {
        if (!copy_volume_is_temp(e->d_name, base) || (fd = copy_volume_lock(dir, e->d_name, false)) < 0)
            continue;
        copy_volume_delete(dir, e->d_name, fd);
        (void)close(fd);
    }
    if (d != NULL)
        (void)closedir(d);
    else if (again >= 0)
        (void)close(again);
}

static int
copy_volume_errno(struct copy *cp, const char *path, int code)
{
    return kvfs_error_set(&cp->c->err, -code, "%s: %s", path, strerrordesc_np(code));
}

/* Make the folder, locked. */
static int
copy_volume_folder(struct copy *cp, struct copy_volume *cv, const char *base)
{
    for (unsigned n = 0; n < COPY_TEMP_TRIES; n++) {
        free(cv->name);
        if (asprintf(&cv->name, "%s" COPY_TEMP_MARK "%ld-%u", base, (long)getpid(), n) < 0) {
            cv->name = NULL;
            return kvfs_error_set(&cp->c->err, -ENOMEM, "no memory");
        }
        if (mkdirat(cv->dir, cv->name, 0777) < 0) {
            if (errno == EEXIST)
                continue;
            return copy_volume_errno(cp, cv->target, errno);
        }
        cv->fd = copy_volume_lock(cv->dir, cv->name, true);
        if (cv->fd >= 0)
            return 0;
        (void)unlinkat(cv->dir, cv->name, AT_REMOVEDIR); /* somebody took it for a leftover */
    }
    return kvfs_error_set(&cp->c->err, -EBUSY, "%s: no temporary folder can be made and locked",
                          cv->target);
}

int
copy_volume_make(struct copy *cp, const char *target, const struct kvfs_format_options *options,
                 struct copy_volume *cv)
{
    char *slash;
    int rc;

    *cv = (struct copy_volume){.target = strdup(target), .dir = -1, .fd = -1};
    if (cv->target == NULL)
        return kvfs_error_set(&cp->c->err, -ENOMEM, "no memory");
    for (size_t len = strlen(cv->target); len > 1 && cv->target[len - 1] == '/';)
        cv->target[--len] = '\0';
    slash = strrchr(cv->target, '/');
    cv->base = slash != NULL ? slash + 1 : cv->target;
    cv->parent = slash == NULL            ? strdup(".")
                 : slash == cv->target ? strdup("/")
                                       : strndup(cv->target, (size_t)(slash - cv->target));
    if (cv->parent == NULL)
        return kvfs_error_set(&cp->c->err, -ENOMEM, "no memory");
    cv->dir = open(cv->parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (cv->dir < 0)
        return copy_volume_errno(cp, cv->target, errno);
    copy_volume_collect(cv->dir, cv->base);
    rc = copy_volume_folder(cp, cv, cv->base);
    if (rc == 0 && asprintf(&cv->temp, "%s/%s", cv->parent, cv->name) < 0) {
        cv->temp = NULL;
        rc = kvfs_error_set(&cp->c->err, -ENOMEM, "no memory");
    }
    return rc == 0 ? kvfs_format(cv->temp, options, &cp->c->err) : rc;
}

int
copy_volume_name(struct copy *cp, struct copy_volume *cv)
{
    if (renameat2(cv->dir, cv->name, cv->dir, cv->base, RENAME_NOREPLACE) < 0 &&
        (errno != EINVAL || renameat(cv->dir, cv->name, cv->dir, cv->base) < 0))
        return copy_volume_errno(cp, cv->target, errno);
    free(cv->name);
    cv->name = NULL;
    return fsync(cv->dir) < 0 ? copy_volume_errno(cp, cv->target, errno) : 0;
}

void
copy_volume_end(struct copy_volume *cv)
{
    if (cv->target == NULL)
        return;
    if (cv->name != NULL && cv->fd >= 0)
        copy_volume_delete(cv->dir, cv->name, cv->fd);
    if (cv->fd >= 0)
        (void)close(cv->fd);
    if (cv->dir >= 0)
        (void)close(cv->dir);
    free(cv->name);
    free(cv->temp);
    free(cv->parent);
    free(cv->target);
    *cv = (struct copy_volume){.dir = -1, .fd = -1};
}
