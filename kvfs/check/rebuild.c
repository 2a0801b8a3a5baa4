/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rebuild.c - pass 4 of the checker: inodes whose record is damaged or missing.
 *
 * Other records bear witness: names tell the type, a folder has entries, a link
 * its target, a regular file its contents record and somewhere a fork that now
 * belongs to nobody.  A folder, and a link with its target, can always be
 * rebuilt.  A regular file can when its fork is certain:
 *
 *  - what is left of the record names a stray fork of the same block size; or
 *  - there is no stray fork at all, so the file had no data: all hole; or
 *  - one file is in question and one stray fork is there.
 *
 * Else it is given up: its records go, and forks.c makes a file in
 * /lost+found of every stray fork, so no data are lost but their name.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "check_priv.h"

/* Nothing else than a name or an orphan record speaks of it. */
static bool
rebuild_is_shadow(const struct check_inode *i)
{
    return (i->flags & (CI_DAMAGED | CI_PARTS)) == 0 && i->ino != KVFS_ROOT_INO;
}

static uint32_t
rebuild_type(const struct check_inode *i)
{
    if ((i->mode & S_IFMT) != 0)
        return i->mode & S_IFMT;
    if ((i->flags & CI_CHILDREN) != 0)
        return S_IFDIR;
    if ((i->flags & CI_TARGET) != 0)
        return S_IFLNK;
    return (i->flags & (CI_CONTENTS | CI_CONTENTS_BAD)) != 0 ? S_IFREG : 0;
}

static bool
rebuild_wanted(const struct check_inode *i)
{
    return (i->flags & (CI_RECORD | CI_NEWER)) == 0 && !rebuild_is_shadow(i);
}

/* Make FORK the fork of I; 0 or -ENOMEM. */
static int
rebuild_take_fork(struct check *c, struct check_inode *i, uint64_t fork)
{
    struct check_fork *f = kvfs_check_table_add(&c->forks, fork);

    if (f == NULL)
        return -ENOMEM;
    f->flags |= CF_FILE;
    f->ino = i->ino;
    i->fork = fork;
    if (f->raw_len != 0)
        i->block_size_bytes = f->raw_len;
    else if ((i->flags & CI_GUESS) == 0)
        i->block_size_bytes = c->super_ok ? c->super.block_size_bytes : 4096;
    i->flags |= CI_REBUILT;
    return 0;
}

static struct check_fork *
rebuild_stray(struct check *c, size_t *count)
{
    struct check_fork *found = NULL;

    *count = 0;
    for (size_t n = 0; n < c->forks.count; n++) {
        struct check_fork *f = kvfs_check_table_at(&c->forks, n);

        if (!kvfs_check_fork_stray(f))
            continue;
        found = f;
        ++*count;
    }
    return found;
}

/* First round: what the damaged record still says, if a stray fork confirms it. */
static int
rebuild_by_guess(struct check *c)
{
    for (size_t n = 0; n < c->inodes.count; n++) {
        struct check_inode *i = kvfs_check_table_at(&c->inodes, n);
        const struct check_fork *f;
        int rc;

        if (!rebuild_wanted(i) || rebuild_type(i) != S_IFREG || (i->flags & CI_GUESS) == 0)
            continue;
        f = kvfs_check_fork(c, i->fork);
        if (f == NULL || !kvfs_check_fork_stray(f) ||
            (f->raw_len != 0 && f->raw_len != i->block_size_bytes))
            continue;
        rc = rebuild_take_fork(c, i, f->fork);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static size_t
rebuild_files_open(struct check *c)
{
    size_t count = 0;

    for (size_t n = 0; n < c->inodes.count; n++) {
        const struct check_inode *i = kvfs_check_table_at(&c->inodes, n);

        /* A file that only a name speaks of may be a stray fork's owner too. */
        if ((i->flags & (CI_RECORD | CI_REBUILT | CI_NEWER)) == 0 && rebuild_type(i) == S_IFREG)
            count++;
    }
    return count;
}

static int
rebuild_file(struct check *c, struct check_inode *i, size_t files_open)
{
    size_t strays;
    const struct check_fork *f = rebuild_stray(c, &strays);

    if (strays == 0)
        return rebuild_take_fork(c, i, kvfs_check_id_new(c));
    if (strays == 1 && files_open == 1)
        return rebuild_take_fork(c, i, f->fork);
    i->flags |= CI_LOST;
    return 0;
}

static int
rebuild_one(struct check *c, struct check_inode *i, size_t files_open)
{
    uint32_t type = rebuild_type(i);
    int rc = 0;

    if ((i->flags & CI_REBUILT) != 0)
        return 0;
    i->mode = (i->mode & 07777) | type;
    switch (type) {
    case S_IFREG:
        rc = rebuild_file(c, i, files_open);
        break;
    case S_IFDIR:
        i->flags |= CI_REBUILT;
        break;
    case S_IFLNK:
        i->flags |= (i->flags & CI_TARGET) != 0 ? CI_REBUILT : CI_LOST;
        break;
    default: /* pipes, sockets, devices: only with what the record still says */
        i->flags |= (i->flags & CI_GUESS) != 0 ? CI_REBUILT : CI_LOST;
        break;
    }
    if ((i->flags & CI_REBUILT) != 0 && (i->mode & 07777) == 0)
        i->mode |= type == S_IFDIR ? 0755 : type == S_IFLNK ? 0777 : 0600;
    return rc;
}

static void
rebuild_report(struct check *c, const struct check_inode *i)
{
    const char *state = (i->flags & CI_DAMAGED) != 0
                            ? "damaged: its checksum does not match or its fields are impossible"
                            : "missing";
    uint64_t ino = i->ino; /* a path's search leaves the table alone, but be plain about it */

    if ((i->flags & CI_LOST) != 0)
        kvfs_check_found(c, kvfs_check_where_inode(c, ino), "given up; its data go to /lost+found",
                         "the inode record (inode %" PRIu64 ") is %s", ino, state);
    else
        kvfs_check_found(c, kvfs_check_where_inode(c, ino), "written anew",
                         "the inode record (inode %" PRIu64 ") is %s", ino, state);
}

int
kvfs_check_rebuild(struct check *c, struct kvfs_error *err)
{
    size_t files_open;
    int rc;

    if (c->incomplete)
        return 0;
    rc = rebuild_by_guess(c);
    files_open = rebuild_files_open(c);
    for (size_t n = 0; rc == 0 && n < c->inodes.count; n++) {
        struct check_inode *i = kvfs_check_table_at(&c->inodes, n);

        if ((i->flags & CI_NEWER) != 0) {
            kvfs_check_found(c, kvfs_check_where_inode(c, i->ino), NULL,
                             "it has a record of a newer version");
            i->flags |= CI_RECORD;
            continue;
        }
        if (!rebuild_wanted(i))
            continue;
        rc = rebuild_one(c, i, files_open);
        if (rc < 0)
            break;
        rebuild_report(c, i);
        if ((i->flags & CI_LOST) != 0)
            rc = kvfs_check_del_inode(c, i->ino, err);
    }
    return rc == -ENOMEM
               ? kvfs_error_set(err, rc, "check: no memory for the tables of inodes and forks")
               : rc;
}
