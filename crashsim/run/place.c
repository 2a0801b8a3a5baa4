/* SPDX-License-Identifier: BSD-3-Clause
 *
 * place.c - see place.h.
 */
#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* When process PID began, in ticks; 0: there is none. */
static unsigned long long
place_pid_start(pid_t pid)
{
    char path[64], text[1024];
    const char *p;
    ssize_t n;
    int fd;

    (void)snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    n = read(fd, text, sizeof(text) - 1);
    (void)close(fd);
    text[n < 0 ? 0 : n] = '\0';
    p = strrchr(text, ')'); /* the name may hold spaces; field 3 follows */
    for (int field = 2; p != NULL && field < 22; field++)
        p = strchr(p + 1, ' ');
    return p == NULL ? 0 : strtoull(p + 1, NULL, 10);
}

void
place_note(const struct place *p, const char *kind, const char *what)
{
    if (p->fd >= 0 && dprintf(p->fd, "%s %s\n", kind, what) < 0)
        perror("crashsim: resources");
}

void
place_note_pid(const struct place *p, pid_t pid)
{
    char text[64];

    (void)snprintf(text, sizeof(text), "%ld %llu", (long)pid, place_pid_start(pid));
    place_note(p, "pid", text);
}

const char *
place_name(const struct place *p, const char *name, char buf[PLACE_NAME_MAX])
{
    (void)snprintf(buf, PLACE_NAME_MAX, "%s/%s", p->path, name);
    return buf;
}

int
place_make(struct place *p, const char *parent, struct kvfs_error *err)
{
    char path[PLACE_NAME_MAX], self[64];
    struct stat st;

    p->fd = -1;
    if (parent == NULL)
        parent = stat("/dev/shm", &st) == 0 ? "/dev/shm"
                                            : getenv("TMPDIR"); // NOLINT(concurrency-mt-unsafe)
    if (parent == NULL)
        parent = "/tmp";
    if (snprintf(p->path, sizeof(p->path), "%s/crashsim.XXXXXX", parent) >= 80)
        return kvfs_error_set(err, -ENAMETOOLONG, "%s: too long for sockets below it", parent);
    if (mkdtemp(p->path) == NULL)
        return kvfs_error_set(err, -errno, "%s: %s", p->path, strerrordesc_np(errno));
    p->fd = open(place_name(p, "resources", path), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC,
                 0600);
    if (p->fd < 0)
        return kvfs_error_set(err, -errno, "%s: %s", path, strerrordesc_np(errno));
    (void)snprintf(self, sizeof(self), "1 %ld %llu", (long)getpid(), place_pid_start(getpid()));
    place_note(p, "crashsim", self);
    /* Not allowed in some containers; then the mounts are everybody's. */
    if (unshare(CLONE_NEWNS) == 0)
        (void)mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    return 0;
}

static int
place_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    (void)remove(path);
    return 0;
}

void
place_remove_tree(const char *path)
{
    (void)nftw(path, place_remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

void
place_remove(struct place *p)
{
    if (p->fd < 0)
        return;
    (void)close(p->fd);
    p->fd = -1;
    place_remove_tree(p->path);
}
