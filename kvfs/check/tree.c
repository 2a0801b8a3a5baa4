/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tree.c - pass 7 of the checker: every inode in its place.
 *
 * By now it is known which inodes exist, which names are kept and what lies in
 * each fork.  An inode without a name is rightly so only when its link count is 0
 * and an orphan record waits for it; else it is named in /lost+found, as is one
 * folder of a circle that the root does not reach.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "check_priv.h"

#define TREE_DAMAGED "damaged: its checksum does not match or its fields are impossible"

/* --- contents of regular files --- */

/* The size that the blocks found ask for. */
static uint64_t
tree_size_of_blocks(const struct check_inode *i, const struct check_fork *f)
{
    if (f == NULL || f->blocks == 0)
        return 0;
    if (f->index_last >= KVFS_FILE_SIZE_MAX / i->block_size_bytes)
        return KVFS_FILE_SIZE_MAX;
    return (f->index_last + 1) * i->block_size_bytes;
}

static int
tree_contents_missing(struct check *c, struct check_inode *i, const struct check_fork *f,
                      struct kvfs_error *err)
{
    uint64_t size = tree_size_of_blocks(i, f);
    bool bad = (i->flags & CI_CONTENTS_BAD) != 0;

    /* What is left of a damaged record may say more than the blocks (a thin disk),
     * but not less. */
    if ((i->flags & CI_SIZE_GUESS) == 0 || i->size_bytes + i->block_size_bytes <= size)
        i->size_bytes = size;
    if (f != NULL && f->cut_max > i->cut)
        i->cut = f->cut_max;
    kvfs_check_found(c, kvfs_check_where_inode(c, i->ino), "written anew; the size is an estimate",
                     "its contents record (size) is %s", bad ? TREE_DAMAGED : "missing");
    return kvfs_check_contents_write(c, i, err);
}

static int
tree_file(struct check *c, struct check_inode *i, struct kvfs_error *err)
{
    const struct check_fork *f = kvfs_check_fork(c, i->fork);

    if ((i->flags & CI_FORK_TAKEN) != 0)
        kvfs_check_found(c, kvfs_check_where_inode(c, i->ino), NULL,
                         "its fork %" PRIu64 " is in use elsewhere too", i->fork);
    if ((i->flags & CI_CONTENTS) == 0)
        return tree_contents_missing(c, i, f, err);
    if (f == NULL || f->cut_max <= i->cut)
        return 0;
    kvfs_check_found(c, kvfs_check_where_inode(c, i->ino), "corrected",
                     "its contents record says cut %" PRIu64 ", but it has blocks of cut %" PRIu64,
                     i->cut, f->cut_max);
    i->cut = f->cut_max;
    return kvfs_check_contents_write(c, i, err);
}

/* Parts that do not go with the type. */
static int
tree_parts(struct check *c, struct check_inode *i, struct kvfs_error *err)
{
    struct kvfs_key key;

    if (S_ISREG(i->mode))
        return tree_file(c, i, err);
    if (S_ISLNK(i->mode) && (i->flags & (CI_TARGET | CI_TARGET_BAD)) == 0)
        kvfs_check_found(c, kvfs_check_where_inode(c, i->ino), NULL, "its target is missing");
    if ((i->flags & (CI_CONTENTS | CI_CONTENTS_BAD)) == 0)
        return 0;
    kvfs_check_found(c, kvfs_check_where_inode(c, i->ino), "removed",
                     "has a contents record, but is no regular file");
    kvfs_key_contents(&key, i->ino);
    return kvfs_check_del(c, &key, err);
}

/* --- names and orphans --- */

static int
tree_orphan_del(struct check *c, uint64_t ino, struct kvfs_error *err)
{
    struct kvfs_key key;

    kvfs_key_orphan(&key, ino);
    return kvfs_check_del(c, &key, err);
}

static int
tree_nameless(struct check *c, struct check_inode *i, struct kvfs_error *err)
{
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    bool orphan = (i->flags & CI_ORPHAN) != 0;
    uint64_t ino = i->ino;
    struct kvfs_key key;
    int rc;

    if ((i->flags & CI_REBUILT) != 0 && orphan)
        return 0; /* its link count is not known, but it was being removed */
    if (i->nlink == 0 && (i->flags & CI_REBUILT) == 0) {
        if (orphan)
            return 0;
        kvfs_check_found(c, kvfs_check_where_inode(c, ino), "left to be deleted",
                         "inode %" PRIu64 " has no link and no orphan record", ino);
        kvfs_key_orphan(&key, ino);
        return kvfs_check_put(c, &key, value, kvfs_number_encode(0, &key, value), err);
    }
    kvfs_check_found(c, kvfs_check_where_inode(c, ino), "named in /lost+found",
                     "inode %" PRIu64 " has no name", ino);
    rc = orphan ? tree_orphan_del(c, ino, err) : 0;
    return rc < 0 ? rc : kvfs_check_rescue_inode(c, ino, err);
}

static int
tree_named(struct check *c, struct check_inode *i, struct kvfs_error *err)
{
    uint32_t nlink = kvfs_check_nlink(i) - i->rescued;
    bool folder = S_ISDIR(i->mode);
    uint64_t parent = i->ino == KVFS_ROOT_INO ? KVFS_ROOT_INO : i->dir;
    int rc = 0;

    if ((i->flags & CI_ORPHAN) != 0) {
        kvfs_check_found(c, kvfs_check_where_inode(c, i->ino), "removed",
                         "has a name and an orphan record");
        rc = tree_orphan_del(c, i->ino, err);
    }
    if ((i->flags & CI_REBUILT) != 0 || rc < 0)
        return rc;
    if (i->nlink != nlink) {
        kvfs_check_found(c, kvfs_check_where_inode(c, i->ino), "corrected",
                         "its link count is %u, it has %u", i->nlink, nlink);
        i->flags |= CI_REWRITE;
    }
    if (folder && i->parent != parent) {
        kvfs_check_found(c, kvfs_check_where_inode(c, i->ino), "corrected",
                         "says that inode %" PRIu64 " is above it, it is %" PRIu64, i->parent,
                         parent);
        i->parent = parent;
        i->flags |= CI_REWRITE;
    }
    return 0;
}

static int
tree_inode(struct check *c, size_t n, struct kvfs_error *err)
{
    struct check_inode *i = kvfs_check_table_at(&c->inodes, n);
    int rc;

    if (!kvfs_check_exists(i)) {
        if ((i->flags & CI_ORPHAN) == 0)
            return 0;
        kvfs_check_found(c, kvfs_check_where_inode(c, i->ino), "removed",
                         "an orphan record of inode %" PRIu64 ", which does not exist", i->ino);
        return tree_orphan_del(c, i->ino, err);
    }
    if ((i->flags & CI_NEWER) != 0)
        return 0;
    rc = tree_parts(c, i, err);
    if (rc < 0)
        return rc;
    return i->names == 0 && i->ino != KVFS_ROOT_INO ? tree_nameless(c, i, err)
                                                    : tree_named(c, i, err);
}

/* --- circles --- */

/* Walk up from folder I: to the root or one that reaches it (true), or into a circle or
 * to a folder without a name.  *circle: a folder of the circle; 0: there is none. */
static bool
tree_walk(struct check *c, struct check_inode *i, uint64_t *circle)
{
    struct check_inode *at = i;
    bool reached;

    *circle = 0;
    while (at != NULL && (at->flags & (CI_REACHED | CI_WALKING)) == 0) {
        at->flags |= CI_WALKING;
        at = at->names > 0 ? kvfs_check_inode(c, at->dir) : NULL;
    }
    reached = at == NULL || (at->flags & CI_REACHED) != 0;
    if (!reached)
        *circle = at->ino;
    for (at = i; at != NULL && (at->flags & CI_WALKING) != 0;
         at = at->names > 0 ? kvfs_check_inode(c, at->dir) : NULL) {
        at->flags &= ~(uint32_t)CI_WALKING;
        /* A chain that ends at a folder without a name was spoken of with that folder. */
        at->flags |= CI_REACHED;
    }
    return reached;
}

static int
tree_circle(struct check *c, uint64_t ino, struct kvfs_error *err)
{
    struct check_inode *i = kvfs_check_inode(c, ino);
    struct check_inode *above = kvfs_check_inode(c, i->dir);
    int rc;

    kvfs_check_found(c, kvfs_check_where_inode(c, ino), "named in /lost+found",
                     "folder %" PRIu64 " is in a circle that the root does not reach", ino);
    rc = kvfs_check_rescue_unname(c, i->dir, ino, err);
    if (rc < 0)
        return rc;
    i->names = 0;
    if (above != NULL && above->subdirs > 0) {
        above->subdirs--;
        above->flags |= CI_REWRITE;
    }
    return kvfs_check_rescue_inode(c, ino, err);
}

static int
tree_reach(struct check *c, struct kvfs_error *err)
{
    struct check_inode *root = kvfs_check_inode(c, KVFS_ROOT_INO);

    root->flags |= CI_REACHED;
    for (size_t n = 0; n < c->inodes.count; n++) {
        struct check_inode *i = kvfs_check_table_at(&c->inodes, n);
        uint64_t circle;
        int rc;

        if (!kvfs_check_exists(i) || !S_ISDIR(i->mode) || tree_walk(c, i, &circle))
            continue;
        rc = tree_circle(c, circle, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int
kvfs_check_tree(struct check *c, struct kvfs_error *err)
{
    size_t count = c->inodes.count; /* what a rescue adds is right by itself */
    int rc = 0;

    for (size_t n = 0; rc == 0 && n < count; n++) {
        rc = tree_inode(c, n, err);
        if (rc == 0)
            rc = kvfs_check_step(c, 0);
    }
    if (rc == 0)
        rc = tree_reach(c, err);
    if (rc == 0)
        rc = kvfs_check_counters(c, err);
    return rc < 0 ? rc : kvfs_check_rescue_write(c, err);
}
