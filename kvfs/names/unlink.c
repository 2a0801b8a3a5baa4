/* SPDX-License-Identifier: BSD-3-Clause
 *
 * unlink.c - taking names away.
 *
 * What loses its last name is removed in the same batch: all keys of the inode
 * at once, the blocks of a file behind (kvfs_reclaim_ops).  A file that is open
 * in this process stays as an orphan, an inode with nlink 0 and a record
 * `O ino`, until its last close, or until the volume is opened after a crash.
 */
#include <errno.h>

#include "names.h"
#include "testbug.h"

int
kvfs_change_unlink(struct kvfs_change *c, struct kvfs_change_inode *inode)
{
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    struct kvfs_key key;
    bool open = false;
    int rc = 0;

    kvfs_change_touch(c, inode, false);
    if (inode->rec.nlink > 1) {
        inode->rec.nlink--;
        return 0;
    }
    c->inodes_delta--;
    if (S_ISREG(inode->rec.mode)) {
        rc = kvfs_node_unlink_prepare(c->v, inode->ino, &open, c->err);
        c->leased = rc == -EBUSY;
        if (rc != 0)
            return rc;
        c->unlinking = inode->ino;
    }
    if (open) {
        inode->rec.nlink = 0;
        kvfs_key_orphan(&key, inode->ino);
        if (!kvfs_test_bug("lost-orphan"))
            kvfs_batch_put(c->b, KVFS_META, key.bytes, key.len, value,
                           kvfs_number_encode(0, &key, value));
        return 0;
    }
    inode->removed = true;
    c->work = true;
    return kvfs_reclaim_ops(c->v, c->snap, c->b, inode->ino, inode->rec.fork, c->err);
}

/* 1: the folder holds no entry, 0: it does. */
static int
unlink_folder_is_empty(struct kvfs_change *c, uint64_t ino)
{
    const struct kvfs_engine *e = c->v->engine;
    struct kvfs_db_cursor *cursor;
    struct kvfs_key lo, hi;
    const void *key;
    size_t key_len, value_len;
    int rc;

    kvfs_key_inode_part(&lo, ino, KVFS_PART_DENTRY);
    kvfs_key_inode_part(&hi, ino, KVFS_PART_COOKIE + 1);
    rc = e->cursor_open(c->snap, KVFS_META, lo.bytes, lo.len, hi.bytes, hi.len, KVFS_SCAN_KEYS_ONLY,
                        &cursor, c->err);
    if (rc != 0)
        return rc;
    rc = e->cursor_next(cursor, &key, &key_len, &value_len, c->err);
    e->cursor_close(cursor);
    return rc < 0 ? rc : rc == 0;
}

int
kvfs_change_rmdir(struct kvfs_change *c, struct kvfs_change_inode *folder,
                  struct kvfs_change_inode *parent)
{
    int rc;

    if (folder->ino == KVFS_ROOT_INO)
        return kvfs_error_set(c->err, -EBUSY, "the root is never removed");
    rc = unlink_folder_is_empty(c, folder->ino);
    if (rc < 0)
        return rc;
    if (rc == 0)
        return kvfs_error_set(c->err, -ENOTEMPTY, "the folder is not empty");
    if (parent->rec.nlink > 2)
        parent->rec.nlink--;
    folder->removed = true;
    c->inodes_delta--;
    return kvfs_reclaim_ops(c->v, c->snap, c->b, folder->ino, 0, c->err);
}

struct unlink {
    uint64_t dir;
    const char *name;
    size_t name_len;
    bool folder; /* rmdir */
};

static int
unlink_change(struct kvfs_change *c, void *arg)
{
    const struct unlink *a = arg;
    struct kvfs_change_inode *parent, *inode;
    struct kvfs_dentry_record dentry;
    struct kvfs_shown shown;
    int rc = kvfs_change_folder(c, a->dir, &parent);

    if (rc == 0)
        rc = kvfs_change_entry(c, a->dir, a->name, a->name_len, &dentry, &inode);
    if (rc != 0)
        return rc;
    if (S_ISDIR(inode->rec.mode) != a->folder)
        return kvfs_error_set(c->err, a->folder ? -ENOTDIR : -EISDIR, "'%s' is %s",
                              kvfs_name_show(&shown, a->name, a->name_len),
                              a->folder ? "no folder" : "a folder");
    kvfs_change_touch(c, parent, true);
    kvfs_change_dentry_del(c, a->dir, a->name, a->name_len, &dentry);
    return a->folder ? kvfs_change_rmdir(c, inode, parent) : kvfs_change_unlink(c, inode);
}

static int
unlink_run(struct kvfs_volume *v, uint64_t dir, const char *name, bool folder,
           struct kvfs_error *err)
{
    struct unlink a = {.dir = dir, .name = name, .folder = folder};
    int rc = kvfs_name_check(name, &a.name_len, err);

    return rc != 0 ? rc : kvfs_change_run(v, unlink_change, &a, err);
}

int
kvfs_unlink(struct kvfs_volume *v, uint64_t dir, const char *name, struct kvfs_error *err)
{
    return unlink_run(v, dir, name, false, err);
}

int
kvfs_rmdir(struct kvfs_volume *v, uint64_t dir, const char *name, struct kvfs_error *err)
{
    return unlink_run(v, dir, name, true, err);
}
