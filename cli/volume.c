/* SPDX-License-Identifier: BSD-3-Clause
 *
 * volume.c - opening and closing volumes for a command.
 */
#include "cli.h"

int
cli_volume_open(struct cli *c, const char *path, bool readonly, struct kvfs_volume **vp)
{
    struct kvfs_volume_options options = {.readonly = readonly, .force = c->o.force};

    return kvfs_volume_open(path, &options, vp, &c->err);
}

int
cli_volume_close(struct cli *c, struct kvfs_volume *v, int status)
{
    int rc = kvfs_volume_close(v, &c->err);

    if (rc < 0 && status == CLI_OK)
        return cli_fail(c, rc);
    return status;
}
