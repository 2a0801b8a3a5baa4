/* SPDX-License-Identifier: BSD-3-Clause
 *
 * place.c - see place.h.
 */
#include "place.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "cmd/rundir.h"

#define PLACE_ROOM_MIN ((uint64_t)1 << 19)
#define PLACE_TIGHT    ((uint64_t)64 << 20)

const char *
place_name(const struct place *p, const char *name, char buf[PLACE_NAME_MAX])
{
    (void)snprintf(buf, PLACE_NAME_MAX, "%s/%s", p->path, name);
    return buf;
}

static bool
place_has_less(const struct place *p, uint64_t bytes)
{
    struct statvfs st;

    return statvfs(p->path, &st) == 0 && (uint64_t)st.f_bavail * st.f_frsize < bytes;
}

bool
place_is_full(const struct place *p)
{
    return place_has_less(p, PLACE_ROOM_MIN);
}

bool
place_is_tight(const struct place *p)
{
    return place_has_less(p, PLACE_TIGHT);
}

void
place_note_pid(const struct place *p, pid_t pid)
{
    (void)rundir_note(p->dir, pid);
}

int
place_make(struct place *p, const char *parent, struct kvfs_error *err)
{
    struct stat st;
    int r;

    if (parent == NULL && stat("/dev/shm", &st) == 0)
        parent = "/dev/shm";
    r = rundir_open(parent, &p->dir);
    if (r < 0)
        return kvfs_error_set(err, r, "no folder in %s: %s", parent != NULL ? parent : "$TMPDIR",
                              strerrordesc_np(-r));
    if (snprintf(p->path, sizeof(p->path), "%s", rundir_path(p->dir)) >= (int)sizeof(p->path)) {
        place_remove(p);
        return kvfs_error_set(err, -ENAMETOOLONG, "%s: too long for sockets below it", parent);
    }
    /* Not allowed in some containers; then the mounts are everybody's. */
    if (unshare(CLONE_NEWNS) == 0)
        (void)mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    return 0;
}

void
place_remove(struct place *p)
{
    int r = p->dir == NULL ? 0 : rundir_close(p->dir);

    if (r < 0)
        (void)fprintf(stderr, "crashsim: %s: %s\n", p->path, strerrordesc_np(-r));
    p->dir = NULL;
}
