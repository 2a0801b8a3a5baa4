/* SPDX-License-Identifier: BSD-3-Clause
 *
 * volume.c - opening and closing volumes for a command.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

/* Descriptors outlive names: all that was written to a volume whose folder is
 * gone was written in vain, and nobody but us can say so. */
static bool
volume_vanished(const char *path)
{
    char file[4096];
    struct stat st;

    return snprintf(file, sizeof(file), "%s/volume", path) < (int)sizeof(file) &&
           stat(file, &st) < 0;
}

/* Does FILE begin as the file `volume` does?  Any other file of that name is the
 * user's own. */
static bool
volume_marks(const char *file)
{
    static const char first[] = "kvfs-volume ";
    char text[sizeof(first) + 1] = "";
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

    if (fd >= 0)
        (void)close(fd);
    return n == (ssize_t)sizeof(first) && strncmp(text, first, sizeof(first) - 1) == 0 &&
           text[sizeof(first) - 1] >= '0' && text[sizeof(first) - 1] <= '9';
}

int
cli_volume_open(struct cli *c, const char *path, bool readonly, struct kvfs_volume **vp)
{
    struct kvfs_volume_options options = {.readonly = readonly, .force = c->o.force};

    return kvfs_volume_open(path, &options, vp, &c->err);
}

int
cli_volume_judge(struct cli *c, const char *path, const char *engine)
{
    const struct kvfs_engine *e;
    char above[4096];
    size_t len = strlen(path);
    int rc = engine != NULL ? kvfs_engine_find(engine, &e, &c->err) : 0;

    if (rc < 0)
        return rc;
    /* One without any cap stands on others that were not named; it says so itself. */
    if (engine != NULL && e->caps != 0 && (e->caps & KVFS_CAP_PERSISTENT) == 0)
        return kvfs_error_set(&c->err, -EINVAL,
                              "engine %.64s forgets everything when its process ends: nobody could "
                              "open the volume",
                              engine);
    while (len > 1 && path[len - 1] == '/')
        len--;
    while (len > 0 && path[len - 1] != '/')
        len--;
    if (len + sizeof("./volume") > sizeof(above))
        return 0; /* too long; said when it is made */
    (void)snprintf(above, sizeof(above), "%.*s./volume", (int)len, path);
    if (volume_marks(above))
        return kvfs_error_set(&c->err, -EINVAL,
                              "%.128s: would lie in the folder of another volume (what is in a "
                              "volume has no path outside)",
                              path);
    return 0;
}

int
cli_volume_close(struct cli *c, struct kvfs_volume *v, int status)
{
    struct kvfs_volume_info info;
    char *path;
    int rc;

    kvfs_volume_info(v, &info);
    path = strdup(info.path);
    rc = kvfs_volume_close(v, &c->err);
    if (rc < 0 && status == CLI_OK)
        status = cli_fail(c, rc);
    if (status == CLI_OK && path != NULL && volume_vanished(path))
        status = cli_error(c, "%s: the volume vanished meanwhile", path);
    free(path);
    return status;
}
