/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cmd_names.c - kvfs mkdir, rm, mv, ln: changing names.
 *
 * Each name is a change of its own, applied at once; all are durable when the
 * command ends with 0.  The first failure ends it, and what was done before
 * stays.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tree.h"

typedef int names_fn(struct cli *c, struct kvfs_volume *v, const char *path);

/* Call FN for the arguments from 1 to END, then make it durable. */
static int
names_run(struct cli *c, int end, names_fn *fn)
{
    struct kvfs_volume *v;
    int rc = cli_volume_open(c, c->args[0], false, &v);

    if (rc < 0)
        return cli_fail(c, rc);
    for (int i = 1; i < end && rc == 0; i++)
        rc = fn(c, v, c->args[i]);
    if (rc == 0)
        rc = kvfs_volume_sync(v, &c->err);
    return cli_volume_close(c, v, rc < 0 ? cli_fail(c, rc) : CLI_OK);
}

/* --- mkdir ------------------------------------------------------------------- */

static int
mkdir_one(struct cli *c, struct kvfs_volume *v, const char *path)
{
    const struct kvfs_create create = {.mode = S_IFDIR | 0755, .uid = geteuid(), .gid = getegid()};
    char name[KVFS_NAME_MAX + 1];
    uint64_t dir;
    int rc = cli_path_split(v, path, false, &dir, name, &c->err);

    if (rc < 0)
        return rc;
    rc = kvfs_create(v, dir, name, &create, NULL, &c->err);
    return rc < 0 ? cli_about(&c->err, rc, path) : 0;
}

/* With --parents: every leading part that is missing; a folder there is fine. */
static int
mkdir_path(struct cli *c, struct kvfs_volume *v, const char *path)
{
    size_t len = strlen(path);
    struct kvfs_attr attr;
    char *part;
    int rc = 0;

    if (!c->o.parents || len == 0)
        return mkdir_one(c, v, path);
    part = strdup(path);
    if (part == NULL)
        return kvfs_error_set(&c->err, -ENOMEM, "no memory");
    for (size_t end = 1; end <= len && rc == 0; end++) {
        if ((path[end] != '/' && path[end] != '\0') || path[end - 1] == '/')
            continue;
        part[end] = '\0';
        rc = kvfs_path_lookup(v, part, true, &attr, &c->err);
        if (rc == -ENOENT)
            rc = mkdir_one(c, v, part);
        else if (rc == 0 && (attr.mode & S_IFMT) != S_IFDIR)
            rc = kvfs_error_set(&c->err, -ENOTDIR, "is no folder");
        if (rc < 0)
            rc = cli_about(&c->err, rc, part);
        part[end] = path[end];
    }
    free(part);
    return rc;
}

static int
mkdir_run(struct cli *c)
{
    return names_run(c, c->args_count, mkdir_path);
}

static const struct cli_option mkdir_options[] = {
    CLI_SWITCH('p', "parents", parents, "also the folders above; no error if it is there"),
    CLI_NETWORK,
    CLI_LAST,
};

const struct cli_command cli_mkdir = {
    "mkdir", "VOLUME PATH...", "make folders", NULL, mkdir_options, 2, -1, mkdir_run,
};

/* --- rm ---------------------------------------------------------------------- */

static int
rm_path(struct cli *c, struct kvfs_volume *v, const char *path)
{
    char name[KVFS_NAME_MAX + 1];
    uint64_t dir;
    int rc = cli_path_entry(v, path, &dir, name, &c->err);

    if (rc == 0) {
        rc = c->o.recursive ? cli_tree_remove(v, dir, name, true, &c->err)
                            : kvfs_unlink(v, dir, name, &c->err);
        if (rc < 0)
            (void)cli_about(&c->err, rc, path);
    }
    return rc == -ENOENT && c->o.ignore_missing ? 0 : rc;
}

static int
rm_run(struct cli *c)
{
    cli_signals_catch();
    return names_run(c, c->args_count, rm_path);
}

static const struct cli_option rm_options[] = {
    CLI_SWITCH('r', "recursive", recursive, "folders too, with all that is in them"),
    CLI_SWITCH('f', "ignore-missing", ignore_missing, "no error if PATH is not there"),
    CLI_NETWORK,
    CLI_LAST,
};

const struct cli_command cli_rm = {
    "rm", "VOLUME PATH...", "remove files and folders",
    "The space is given back in the background, whatever the size.  A file that somebody\n"
    "writes, such as a disk with a client, is not removed; the error names who holds it.\n",
    rm_options, 2, -1, rm_run,
};

/* --- mv ---------------------------------------------------------------------- */

/* Rename, and say of a failure whose it is: a file that is being written is the
 * one that would be replaced. */
static int
mv_rename(struct cli *c, struct kvfs_volume *v, const char *path, uint64_t dir, const char *name,
          const struct cli_place *place)
{
    const char *target = c->args[c->args_count - 1];
    unsigned flags = 0;
    char *replaced;
    int rc;

    if (c->o.no_clobber)
        flags |= KVFS_RENAME_NOREPLACE;
    if (c->o.exchange)
        flags |= KVFS_RENAME_EXCHANGE;
    rc = kvfs_rename(v, dir, name, place->dir, place->name, flags, &c->err);
    if (rc == -EBUSY && place->inside) {
        if (asprintf(&replaced, "%s/%s", target, place->name) < 0)
            return rc;
        (void)cli_about(&c->err, rc, replaced);
        free(replaced);
    } else if (rc < 0) {
        (void)cli_about(&c->err, rc, rc == -EBUSY ? target : path);
    }
    return rc;
}

static int
mv_path(struct cli *c, struct kvfs_volume *v, const char *path)
{
    const char *target = c->args[c->args_count - 1];
    bool exact = c->o.no_target_directory || c->o.exchange;
    char name[KVFS_NAME_MAX + 1];
    struct cli_place place;
    struct kvfs_attr attr;
    uint64_t dir;
    int rc = cli_path_entry(v, path, &dir, name, &c->err);

    if (rc == 0)
        rc = cli_place_find(v, target, path, exact, &place, &c->err);
    if (rc == 0 && place.slash) {
        rc = kvfs_lookup(v, dir, name, &attr, &c->err);
        if (rc < 0)
            (void)cli_about(&c->err, rc, path);
        else if ((attr.mode & S_IFMT) != S_IFDIR)
            rc = cli_place_file(&place, target, &c->err);
    }
    if (rc == 0 && c->args_count > 3) { /* many sources need a folder */
        rc = kvfs_path_lookup(v, target, true, &attr, &c->err);
        if (rc == 0 && (exact || (attr.mode & S_IFMT) != S_IFDIR))
            rc = kvfs_error_set(&c->err, -ENOTDIR, "is no folder to move into");
        if (rc < 0)
            (void)cli_about(&c->err, rc, target);
    }
    return rc != 0 ? rc : mv_rename(c, v, path, dir, name, &place);
}

static int
mv_run(struct cli *c)
{
    if (c->o.no_clobber && c->o.exchange) {
        (void)cli_error(c, "--no-clobber and --exchange exclude each other");
        return CLI_USAGE;
    }
    return names_run(c, c->args_count - 1, mv_path);
}

static const struct cli_option mv_options[] = {
    CLI_SWITCH('n', "no-clobber", no_clobber, "fail rather than replace what is there"),
    CLI_SWITCH('T', "no-target-directory", no_target_directory,
               "TARGET is the new name, also where a folder has it"),
    CLI_SWITCH(0, "exchange", exchange, "swap SOURCE and TARGET in one step"),
    CLI_NETWORK,
    CLI_LAST,
};

const struct cli_command cli_mv = {
    "mv", "VOLUME SOURCE... TARGET", "rename or move files and folders",
    "A TARGET that is a folder takes the sources in; another one is replaced in one step.\n",
    mv_options, 3, -1, mv_run,
};

/* --- ln ---------------------------------------------------------------------- */

static int
ln_symbolic(struct cli *c, struct kvfs_volume *v, const struct cli_place *place)
{
    const struct kvfs_create create = {
        .mode = S_IFLNK | 0777,
        .uid = geteuid(),
        .gid = getegid(),
        .target = c->args[1],
    };

    return kvfs_create(v, place->dir, place->name, &create, NULL, &c->err);
}

static int
ln_path(struct cli *c, struct kvfs_volume *v, const char *path)
{
    struct cli_place place;
    struct kvfs_attr attr;
    int rc = cli_place_find(v, c->args[2], path, false, &place, &c->err);

    if (rc == 0)
        rc = cli_place_file(&place, c->args[2], &c->err);
    if (rc < 0)
        return rc;
    if (c->o.symbolic) {
        rc = ln_symbolic(c, v, &place);
        return rc < 0 ? cli_about(&c->err, rc, c->args[2]) : 0;
    }
    rc = kvfs_path_lookup(v, path, false, &attr, &c->err);
    if (rc < 0)
        return cli_about(&c->err, rc, path);
    rc = kvfs_link(v, attr.ino, place.dir, place.name, &c->err);
    return rc < 0 ? cli_about(&c->err, rc, rc == -EPERM || rc == -EMLINK ? path : c->args[2]) : 0;
}

static int
ln_run(struct cli *c)
{
    return names_run(c, 2, ln_path);
}

static const struct cli_option ln_options[] = {
    CLI_SWITCH('s', "symbolic", symbolic, "a symbolic link; TARGET is stored as it is written"),
    CLI_NETWORK,
    CLI_LAST,
};

const struct cli_command cli_ln = {
    "ln", "VOLUME TARGET NAME", "make a hard or symbolic link", NULL, ln_options, 3, 3, ln_run,
};
