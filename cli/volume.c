/* SPDX-License-Identifier: BSD-3-Clause
 *
 * volume.c - opening and closing volumes for a command.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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

int
cli_volume_open(struct cli *c, const char *path, bool readonly, struct kvfs_volume **vp)
{
    struct kvfs_volume_options options = {.readonly = readonly, .force = c->o.force};

    return kvfs_volume_open(path, &options, vp, &c->err);
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
