/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cmd_disk.c - kvfs create, resize: thin disks.
 */
#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tree.h"

/* --- create ------------------------------------------------------------------ */

static int
create_make(struct cli *c, struct kvfs_volume *v, const struct kvfs_create *create)
{
    char name[KVFS_NAME_MAX + 1];
    uint64_t dir;
    int rc = cli_path_split(v, c->args[1], true, &dir, name, &c->err);

    if (rc < 0)
        return rc;
    rc = kvfs_create(v, dir, name, create, NULL, &c->err);
    return rc < 0 ? cli_about(&c->err, rc, c->args[1]) : kvfs_volume_sync(v, &c->err);
}

static int
create_run(struct cli *c)
{
    struct kvfs_create create = {.mode = S_IFREG | 0644, .uid = geteuid(), .gid = getegid()};
    struct kvfs_volume *v;
    int rc;

    if (c->o.size == NULL) {
        (void)cli_error(c, "--size is missing; try 'kvfs create --help'");
        return CLI_USAGE;
    }
    rc = cli_size_disk(c, "--size", c->o.size, &create.size_bytes);
    if (rc == CLI_OK)
        rc = cli_size_block(c, &create.block_size_bytes);
    if (rc != CLI_OK)
        return rc;
    rc = cli_volume_open(c, c->args[0], false, &v);
    if (rc < 0)
        return cli_fail(c, rc);
    rc = create_make(c, v, &create);
    return cli_volume_close(c, v, rc < 0 ? cli_fail(c, rc) : CLI_OK);
}

static const struct cli_option create_options[] = {
    CLI_VALUE(0, "size", "SIZE", size, "size of the disk, a multiple of 512; takes no space yet"),
    CLI_VALUE(0, "block-size", "N", block_size, "512 to 64K; default: the volume's"),
    CLI_NETWORK,
    CLI_LAST,
};

const struct cli_command cli_create = {
    "create", "VOLUME FILE", "make a thin disk", NULL, create_options, 2, 2, create_run,
};

/* --- resize ------------------------------------------------------------------ */

/* N is SIZE, or with MORE what +SIZE adds to what the file has NOW. */
static int
resize_target(struct cli *c, uint64_t now, bool more, uint64_t *n)
{
    if (more && *n > KVFS_FILE_SIZE_MAX - now)
        return cli_error(c, "%s: %" PRIu64 " bytes and %s more are beyond 8 EiB - 1", c->args[1],
                         now, c->args[2] + 1);
    if (more)
        *n += now;
    if (*n == now)
        return CLI_OK; /* of whatever size */
    if (*n % 512 != 0)
        return cli_error(c, "%s: %" PRIu64 " bytes are not a multiple of 512", c->args[1], *n);
    if (*n < now && !c->o.shrink)
        return cli_error(c,
                         "%s: has %" PRIu64 " bytes; making it %" PRIu64
                         " loses the rest (--shrink does it)",
                         c->args[1], now, *n);
    return CLI_OK;
}

static int
resize_file(struct cli *c, struct kvfs_volume *v, bool more, uint64_t n)
{
    struct kvfs_file_info info;
    struct kvfs_attr attr;
    struct kvfs_file *f;
    int rc = kvfs_path_lookup(v, c->args[1], true, &attr, &c->err), status;

    if (rc == 0 && (attr.mode & S_IFMT) != S_IFREG)
        rc = kvfs_error_set(&c->err, -EINVAL, "is a %s, not a file", cli_type_text(attr.mode));
    if (rc == 0)
        rc = kvfs_file_open(v, attr.ino, KVFS_OPEN_READ, &f, &c->err);
    if (rc != 0)
        return cli_fail(c, cli_about(&c->err, rc, c->args[1]));
    kvfs_file_info(f, &info);
    status = resize_target(c, info.size_bytes, more, &n);
    if (status == CLI_OK && n != info.size_bytes) {
        rc = kvfs_file_resize(f, n, &c->err);
        status = rc < 0 ? cli_fail(c, cli_about(&c->err, rc, c->args[1])) : CLI_OK;
    }
    kvfs_file_close(f);
    return status;
}

static int
resize_run(struct cli *c)
{
    bool more = c->args[2][0] == '+';
    struct kvfs_volume *v;
    uint64_t n = 0;
    int rc = more ? cli_size_any(c, "size", c->args[2] + 1, &n) /* the sum is judged later */
                  : cli_size_disk(c, "size", c->args[2], &n);

    if (rc != CLI_OK)
        return rc;
    rc = cli_volume_open(c, c->args[0], false, &v);
    if (rc < 0)
        return cli_fail(c, rc);
    return cli_volume_close(c, v, resize_file(c, v, more, n));
}

static const struct cli_option resize_options[] = {
    CLI_SWITCH(0, "shrink", shrink, "allow a smaller size; what lies behind it is lost"),
    CLI_NETWORK,
    CLI_LAST,
};

const struct cli_command cli_resize = {
    "resize", "VOLUME FILE [+]SIZE", "change the size of a disk",
    "Growing works while the disk is served; the next connection sees it.\n",
    resize_options, 3, 3, resize_run,
};
