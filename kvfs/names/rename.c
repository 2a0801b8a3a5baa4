/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rename.c - moving, replacing and exchanging names.
 *
 * A cookie belongs to a name, not to what it stands for: a name that exists
 * before and after keeps its own (replaced, exchanged), so that whoever walks
 * the folder meanwhile meets it once; a name that is new takes the cookie of the
 * one that goes, which no other entry ever had.
 */
#include <errno.h>

#include "names.h"

struct rename_name {
    uint64_t dir;
    const char *name;
    size_t name_len;
    struct kvfs_change_inode *folder;
    bool exists;
    struct kvfs_dentry_record dentry;
    struct kvfs_change_inode *inode;
};

struct rename {
    struct rename_name old, new;
    unsigned flags;
};

/* Whether the name exists, and what it names.  -ENOENT: it does not. */
static int
rename_read(struct kvfs_change *c, struct rename_name *n)
{
    int rc = kvfs_change_entry(c, n->dir, n->name, n->name_len, &n->dentry, &n->inode);

    n->exists = rc == 0;
    return rc;
}

/* FOLDER may not become an entry of DIR if it is DIR or above it. */
static int
rename_refuse_loop(struct kvfs_change *c, uint64_t folder, uint64_t dir)
{
    struct kvfs_inode_record rec;
    uint64_t mark = 0; /* a folder that was passed; every power of two another one */
    int rc;

    for (uint64_t depth = 1; dir != mark; depth++) {
        if (dir == folder)
            return kvfs_error_set(c->err, -EINVAL, "a folder cannot be moved below itself");
        if (dir == KVFS_ROOT_INO)
            return 0;
        if ((depth & (depth - 1)) == 0)
            mark = dir;
        rc = kvfs_folder_read(c->v, c->snap, dir, &rec, c->err);
        if (rc == -ENOENT || rc == -ENOTDIR)
            rc = kvfs_error_set(c->err, -EIO, "inode %llu is not the folder it should be",
                                (unsigned long long)dir);
        if (rc != 0)
            return rc;
        dir = rec.parent;
    }
    return kvfs_error_set(c->err, -EIO, "the folders above inode %llu run in a circle",
                          (unsigned long long)folder);
}

/* N's inode becomes an entry of TO, another folder. */
static int
rename_reparent(struct kvfs_change *c, const struct rename_name *n, struct kvfs_change_inode *to)
{
    struct kvfs_change_inode *inode = n->inode;
    int rc;

    if (!S_ISDIR(inode->rec.mode) || n->folder == to)
        return 0;
    rc = rename_refuse_loop(c, inode->ino, to->ino);
    if (rc != 0)
        return rc;
    inode->rec.parent = to->ino;
    if (n->folder->rec.nlink > 2)
        n->folder->rec.nlink--;
    if (to->rec.nlink >= KVFS_NLINK_MAX)
        return kvfs_error_set(c->err, -EMLINK, "inode %llu has %u links already",
                              (unsigned long long)to->ino, to->rec.nlink);
    to->rec.nlink++;
    c->folder_moves = true;
    return 0;
}

static int
rename_exchange(struct kvfs_change *c, struct rename *a)
{
    struct kvfs_dentry_record old = a->old.dentry, new = a->new.dentry;
    int rc = rename_reparent(c, &a->old, a->new.folder);

    if (rc == 0)
        rc = rename_reparent(c, &a->new, a->old.folder);
    if (rc != 0)
        return rc;
    old.ino = a->new.dentry.ino;
    old.type = a->new.dentry.type;
    new.ino = a->old.dentry.ino;
    new.type = a->old.dentry.type;
    kvfs_change_dentry_put(c, a->old.dir, a->old.name, a->old.name_len, &a->old.dentry, &old);
    kvfs_change_dentry_put(c, a->new.dir, a->new.name, a->new.name_len, &a->new.dentry, &new);
    kvfs_change_touch(c, a->new.inode, false);
    return 0;
}

/* What NEW names makes room for what OLD names. */
static int
rename_replace(struct kvfs_change *c, struct rename *a)
{
    bool old_is_folder = S_ISDIR(a->old.inode->rec.mode);
    bool new_is_folder = S_ISDIR(a->new.inode->rec.mode);
    struct kvfs_shown shown;

    if (old_is_folder != new_is_folder)
        return kvfs_error_set(c->err, new_is_folder ? -EISDIR : -ENOTDIR, "'%s' is %s",
                              kvfs_name_show(&shown, a->new.name, a->new.name_len),
                              new_is_folder ? "a folder" : "no folder");
    return new_is_folder ? kvfs_change_rmdir(c, a->new.inode, a->new.folder)
                         : kvfs_change_unlink(c, a->new.inode);
}

static int
rename_move(struct kvfs_change *c, struct rename *a)
{
    struct kvfs_dentry_record moved = a->old.dentry;
    int rc = rename_reparent(c, &a->old, a->new.folder);

    if (rc == 0 && a->new.exists)
        rc = rename_replace(c, a);
    if (rc != 0)
        return rc;
    if (a->new.exists)
        moved.cookie = a->new.dentry.cookie;
    /* The old name goes first: in one folder both share a cookie. */
    kvfs_change_dentry_del(c, a->old.dir, a->old.name, a->old.name_len, &a->old.dentry);
    kvfs_change_dentry_put(c, a->new.dir, a->new.name, a->new.name_len,
                           a->new.exists ? &a->new.dentry : NULL, &moved);
    return 0;
}

static int
rename_change(struct kvfs_change *c, void *arg)
{
    struct rename *a = arg;
    struct kvfs_shown shown;
    int rc = kvfs_change_folder(c, a->old.dir, &a->old.folder);

    if (rc == 0)
        rc = kvfs_change_folder(c, a->new.dir, &a->new.folder);
    if (rc == 0)
        rc = rename_read(c, &a->old);
    if (rc == 0) {
        rc = rename_read(c, &a->new);
        if (rc == -ENOENT && (a->flags & KVFS_RENAME_EXCHANGE) == 0)
            rc = 0;
    }
    if (rc != 0)
        return rc;
    if (a->new.exists && (a->flags & KVFS_RENAME_NOREPLACE) != 0)
        return kvfs_error_set(c->err, -EEXIST, "'%s' exists already",
                              kvfs_name_show(&shown, a->new.name, a->new.name_len));
    if (a->new.exists && a->new.inode == a->old.inode)
        return 0; /* two names of one file: POSIX leaves both */
    rc = (a->flags & KVFS_RENAME_EXCHANGE) != 0 ? rename_exchange(c, a) : rename_move(c, a);
    if (rc != 0)
        return rc;
    kvfs_change_touch(c, a->old.inode, false);
    kvfs_change_touch(c, a->old.folder, true);
    if (a->new.folder != a->old.folder)
        kvfs_change_touch(c, a->new.folder, true);
    return 0;
}

int
kvfs_rename(struct kvfs_volume *v, uint64_t old_dir, const char *old_name, uint64_t new_dir,
            const char *new_name, unsigned flags, struct kvfs_error *err)
{
    struct rename a = {.old = {.dir = old_dir, .name = old_name},
                       .new = {.dir = new_dir, .name = new_name},
                       .flags = flags};
    int rc;

    if ((flags & ~(unsigned)(KVFS_RENAME_NOREPLACE | KVFS_RENAME_EXCHANGE)) != 0 ||
        flags == (KVFS_RENAME_NOREPLACE | KVFS_RENAME_EXCHANGE))
        return kvfs_error_set(err, -EINVAL, "%#x are no flags of a rename", flags);
    rc = kvfs_name_check(old_name, &a.old.name_len, err);
    if (rc == 0)
        rc = kvfs_name_check(new_name, &a.new.name_len, err);
    return rc != 0 ? rc : kvfs_change_run(v, rename_change, &a, err);
}
