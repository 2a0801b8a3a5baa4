/* SPDX-License-Identifier: BSD-3-Clause
 *
 * dir.c - looking up, making and linking names; attributes.
 *
 * Removing names is in unlink.c, moving them in rename.c; how a change is made
 * safe against others is at the top of names.c.
 *
 * A create puts, in one batch: the folder's inode (times, and nlink for a folder
 * in it), the entry, its cookie, the new inode, a file's contents record or a
 * link's target, and the counter of inodes.
 */
#include <errno.h>
#include <string.h>

#include "names.h"

/* What a lookup of NAME in DIR finds: an entry, or one of the two dots. */
static int
dir_find(struct kvfs_volume *v, struct kvfs_db_snap *snap, uint64_t dir, const char *name,
         uint64_t *ino, struct kvfs_error *err)
{
    struct kvfs_inode_record folder;
    struct kvfs_dentry_record dentry;
    size_t name_len = strlen(name);
    int rc = kvfs_folder_read(v, snap, dir, &folder, err);

    if (rc != 0)
        return rc;
    if (kvfs_name_is_dots(name, name_len)) {
        *ino = name_len == 1 ? dir : folder.parent;
        return 0;
    }
    rc = kvfs_name_check(name, &name_len, err);
    if (rc == 0)
        rc = kvfs_dentry_read(v, snap, dir, name, name_len, &dentry, err);
    if (rc == 0)
        *ino = dentry.ino;
    return rc;
}

int
kvfs_lookup(struct kvfs_volume *v, uint64_t dir, const char *name, struct kvfs_attr *attr,
            struct kvfs_error *err)
{
    struct kvfs_db_snap *snap;
    struct kvfs_shown shown;
    uint64_t ino;
    int rc = kvfs_names_begin(v, &snap, err);

    if (rc != 0)
        return rc;
    rc = dir_find(v, snap, dir, name, &ino, err);
    if (rc == 0) {
        rc = kvfs_attr_read(v, snap, ino, attr, err);
        if (rc == -ENOENT) /* of one snapshot, so not a race */
            rc =
                kvfs_error_set(err, -EIO, "'%s' names inode %llu, which is missing",
                               kvfs_name_show(&shown, name, strlen(name)), (unsigned long long)ino);
    }
    v->engine->end(snap);
    return rc;
}

int
kvfs_getattr(struct kvfs_volume *v, uint64_t ino, struct kvfs_attr *attr, struct kvfs_error *err)
{
    struct kvfs_db_snap *snap;
    int rc = kvfs_names_begin(v, &snap, err);

    if (rc != 0)
        return rc;
    rc = kvfs_attr_read(v, snap, ino, attr, err);
    v->engine->end(snap);
    return rc;
}

int
kvfs_readlink(struct kvfs_volume *v, uint64_t ino, char *buf, size_t cap, size_t *len,
              struct kvfs_error *err)
{
    struct kvfs_inode_record rec;
    struct kvfs_db_snap *snap;
    char target[KVFS_SYMLINK_MAX + 1];
    size_t target_len;
    int rc = kvfs_names_begin(v, &snap, err);

    if (rc != 0)
        return rc;
    rc = kvfs_inode_read(v, snap, ino, &rec, err);
    if (rc == 0 && !S_ISLNK(rec.mode))
        rc =
            kvfs_error_set(err, -EINVAL, "inode %llu is no symbolic link", (unsigned long long)ino);
    if (rc == 0)
        rc = kvfs_target_read(v, snap, ino, target, &target_len, err);
    v->engine->end(snap);
    if (rc == 0) {
        memcpy(buf, target, target_len < cap ? target_len : cap);
        *len = target_len;
    }
    return rc;
}

/* --- create --- */

struct create {
    uint64_t dir;
    const char *name;
    size_t name_len;
    size_t target_len;
    struct kvfs_dentry_record dentry;
    struct kvfs_inode_record rec;
    const struct kvfs_create *wanted;
};

static int
create_judge_file(const struct kvfs_volume *v, struct create *a, struct kvfs_error *err)
{
    uint32_t bs = a->wanted->block_size_bytes;

    if (bs == 0)
        bs = v->super.block_size_bytes;
    if (bs < KVFS_BLOCK_SIZE_MIN || bs > KVFS_BLOCK_SIZE_MAX || (bs & (bs - 1)) != 0)
        return kvfs_error_set(err, -EINVAL,
                              "a block size of %u bytes; it is a power of two, %u..%u", bs,
                              KVFS_BLOCK_SIZE_MIN, KVFS_BLOCK_SIZE_MAX);
    if (a->wanted->size_bytes > KVFS_FILE_SIZE_MAX)
        return kvfs_error_set(err, -EFBIG, "a file of %llu bytes; the longest is 8 EiB - 1",
                              (unsigned long long)a->wanted->size_bytes);
    a->rec.block_size_bytes = bs;
    return 0;
}

static int
create_judge_link(struct create *a, struct kvfs_error *err)
{
    if (a->wanted->target == NULL || a->wanted->target[0] == '\0')
        return kvfs_error_set(err, -EINVAL, "a symbolic link without a target");
    a->target_len = strlen(a->wanted->target);
    if (a->target_len > KVFS_SYMLINK_MAX)
        return kvfs_error_set(err, -ENAMETOOLONG, "a link's target of %zu bytes; the longest is %d",
                              a->target_len, KVFS_SYMLINK_MAX);
    return 0;
}

/* Judge what the caller wants, before anything is read. */
static int
create_judge(const struct kvfs_volume *v, struct create *a, struct kvfs_error *err)
{
    uint32_t mode = a->wanted->mode;
    int rc = kvfs_name_check(a->name, &a->name_len, err);

    if (rc != 0)
        return rc;
    a->rec = (struct kvfs_inode_record){
        .mode = mode, .uid = a->wanted->uid, .gid = a->wanted->gid, .nlink = 1};
    if ((mode & ~(uint32_t)(S_IFMT | 07777)) != 0)
        return kvfs_error_set(err, -EINVAL, "%#o is no mode of a file", mode);
    switch (mode & S_IFMT) {
    case S_IFREG:
        return create_judge_file(v, a, err);
    case S_IFLNK:
        return create_judge_link(a, err);
    case S_IFDIR:
        a->rec.nlink = 2;
        a->rec.parent = a->dir;
        return 0;
    case S_IFCHR:
    case S_IFBLK:
        a->rec.rdev = a->wanted->rdev;
        return 0;
    case S_IFIFO:
    case S_IFSOCK:
        return 0;
    default:
        return kvfs_error_set(err, -EINVAL, "%#o is no mode of a file", mode);
    }
}

/* The records of the new inode itself. */
static void
create_put_inode(struct kvfs_change *c, struct create *a)
{
    struct kvfs_contents_record contents = {.size_bytes = a->wanted->size_bytes,
                                            .mtime_ns = c->now_ns};
    uint8_t value[KVFS_SYMLINK_MAX + 16];
    uint64_t ino = a->dentry.ino;
    struct kvfs_key key;

    a->rec.atime_ns = a->rec.mtime_ns = a->rec.ctime_ns = a->rec.crtime_ns = c->now_ns;
    kvfs_key_inode(&key, ino);
    kvfs_batch_expect_absent(c->b, KVFS_META, key.bytes, key.len);
    kvfs_batch_put(c->b, KVFS_META, key.bytes, key.len, value,
                   kvfs_inode_encode(&a->rec, &key, value));
    if (S_ISREG(a->rec.mode)) {
        kvfs_key_contents(&key, ino);
        kvfs_batch_put(c->b, KVFS_META, key.bytes, key.len, value,
                       kvfs_contents_encode(&contents, &key, value));
    } else if (S_ISLNK(a->rec.mode)) {
        kvfs_key_symlink(&key, ino);
        kvfs_batch_put(c->b, KVFS_META, key.bytes, key.len, value,
                       kvfs_bytes_encode(a->wanted->target, a->target_len, &key, value));
    }
}

/* NAME must not be in DIR yet. */
static int
dir_expect_absent(struct kvfs_change *c, uint64_t dir, const char *name, size_t name_len)
{
    struct kvfs_error found = {0};
    struct kvfs_dentry_record there;
    struct kvfs_shown shown;
    int rc = kvfs_dentry_read(c->v, c->snap, dir, name, name_len, &there, &found);

    if (rc == -ENOENT)
        return 0;
    if (rc == 0)
        return kvfs_error_set(c->err, -EEXIST, "'%s' exists already",
                              kvfs_name_show(&shown, name, name_len));
    return kvfs_error_set(c->err, rc, "%s", found.msg);
}

static int
dir_nlink_add(struct kvfs_change *c, struct kvfs_change_inode *i)
{
    if (i->rec.nlink >= KVFS_NLINK_MAX)
        return kvfs_error_set(c->err, -EMLINK, "inode %llu has %u links already",
                              (unsigned long long)i->ino, i->rec.nlink);
    i->rec.nlink++;
    return 0;
}

static int
create_change(struct kvfs_change *c, void *arg)
{
    struct create *a = arg;
    struct kvfs_change_inode *folder;
    int rc = kvfs_change_folder(c, a->dir, &folder);

    if (rc == 0)
        rc = dir_expect_absent(c, a->dir, a->name, a->name_len);
    if (rc == 0 && S_ISDIR(a->rec.mode))
        rc = dir_nlink_add(c, folder);
    /* Numbers are reserved once; a second try takes the same. */
    if (rc == 0 && a->dentry.ino == 0)
        rc = kvfs_id_new(c->v, &a->dentry.ino, c->err);
    if (rc == 0 && a->dentry.cookie == 0)
        rc = kvfs_id_new(c->v, &a->dentry.cookie, c->err);
    if (rc == 0 && S_ISREG(a->rec.mode) && a->rec.fork == 0)
        rc = kvfs_id_new(c->v, &a->rec.fork, c->err);
    if (rc != 0)
        return rc;
    kvfs_change_touch(c, folder, true);
    kvfs_change_dentry_put(c, a->dir, a->name, a->name_len, NULL, &a->dentry);
    create_put_inode(c, a);
    c->inodes_delta = 1;
    return 0;
}

int
kvfs_create(struct kvfs_volume *v, uint64_t dir, const char *name, const struct kvfs_create *create,
            struct kvfs_attr *attr, struct kvfs_error *err)
{
    struct create a = {
        .dir = dir, .name = name, .dentry = {.type = create->mode & S_IFMT}, .wanted = create};
    int rc = create_judge(v, &a, err);

    if (rc == 0)
        rc = kvfs_change_run(v, create_change, &a, err);
    if (rc != 0 || attr == NULL)
        return rc;
    *attr = (struct kvfs_attr){
        .ino = a.dentry.ino,
        .mode = a.rec.mode,
        .uid = a.rec.uid,
        .gid = a.rec.gid,
        .nlink = a.rec.nlink,
        .rdev = a.rec.rdev,
        .size_bytes = S_ISREG(a.rec.mode) ? create->size_bytes : a.target_len,
        .block_size_bytes = a.rec.block_size_bytes,
        .atime_ns = a.rec.atime_ns,
        .mtime_ns = a.rec.mtime_ns,
        .ctime_ns = a.rec.ctime_ns,
        .crtime_ns = a.rec.crtime_ns,
    };
    return 0;
}

/* --- link --- */

struct link {
    uint64_t ino, dir, cookie;
    const char *name;
    size_t name_len;
};

static int
link_change(struct kvfs_change *c, void *arg)
{
    struct link *a = arg;
    struct kvfs_dentry_record dentry = {.ino = a->ino};
    struct kvfs_change_inode *folder, *inode;
    int rc = kvfs_change_folder(c, a->dir, &folder);

    if (rc == 0)
        rc = kvfs_change_inode(c, a->ino, &inode);
    if (rc != 0)
        return rc;
    if (S_ISDIR(inode->rec.mode))
        return kvfs_error_set(c->err, -EPERM, "a folder has one name only");
    if (inode->rec.nlink == 0)
        return kvfs_error_set(c->err, -ENOENT, "inode %llu is already removed",
                              (unsigned long long)a->ino);
    rc = dir_expect_absent(c, a->dir, a->name, a->name_len);
    if (rc == 0)
        rc = dir_nlink_add(c, inode);
    if (rc == 0 && a->cookie == 0)
        rc = kvfs_id_new(c->v, &a->cookie, c->err);
    if (rc != 0)
        return rc;
    dentry.cookie = a->cookie;
    dentry.type = inode->rec.mode & S_IFMT;
    kvfs_change_touch(c, inode, false);
    kvfs_change_touch(c, folder, true);
    kvfs_change_dentry_put(c, a->dir, a->name, a->name_len, NULL, &dentry);
    return 0;
}

int
kvfs_link(struct kvfs_volume *v, uint64_t ino, uint64_t dir, const char *name,
          struct kvfs_error *err)
{
    struct link a = {.ino = ino, .dir = dir, .name = name};
    int rc = kvfs_name_check(name, &a.name_len, err);

    return rc != 0 ? rc : kvfs_change_run(v, link_change, &a, err);
}

/* --- attributes --- */

struct setattr {
    uint64_t ino;
    unsigned mask;
    const struct kvfs_attr *attr;
};

static int
setattr_change(struct kvfs_change *c, void *arg)
{
    const struct setattr *a = arg;
    struct kvfs_change_inode *i;
    int rc = kvfs_change_inode(c, a->ino, &i);

    if (rc != 0)
        return rc;
    if (a->mask & KVFS_SET_MODE)
        i->rec.mode = (i->rec.mode & S_IFMT) | (a->attr->mode & 07777);
    if (a->mask & KVFS_SET_UID)
        i->rec.uid = a->attr->uid;
    if (a->mask & KVFS_SET_GID)
        i->rec.gid = a->attr->gid;
    if (a->mask & KVFS_SET_ATIME)
        i->rec.atime_ns = a->attr->atime_ns;
    if (a->mask & KVFS_SET_MTIME)
        i->rec.mtime_ns = a->attr->mtime_ns;
    kvfs_change_touch(c, i, false);
    return 0;
}

int
kvfs_setattr(struct kvfs_volume *v, uint64_t ino, unsigned mask, const struct kvfs_attr *attr,
             struct kvfs_error *err)
{
    struct setattr a = {.ino = ino, .mask = mask, .attr = attr};

    return kvfs_change_run(v, setattr_change, &a, err);
}
