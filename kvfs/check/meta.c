/* SPDX-License-Identifier: BSD-3-Clause
 *
 * meta.c - pass 1 of the checker: every META record, decoded once.
 *
 * Fills the tables of inodes and forks.  What can be judged by the record alone
 * is judged here: keys that no format has, and the small records whose meaning
 * is in the key (orphans, dead forks, counters), which are written anew.  What
 * needs a path to be named, or other records to be judged, is only noted.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "check_priv.h"

#define META_DAMAGED "damaged: its checksum does not match or its fields are impossible"

static int
meta_oom(struct kvfs_error *err)
{
    return kvfs_error_set(err, -ENOMEM, "check: no memory for the tables of inodes and forks");
}

static struct check_inode *
meta_inode(struct check *c, uint64_t ino)
{
    return kvfs_check_table_add(&c->inodes, ino);
}

static void
meta_inode_fill(struct check_inode *i, const struct kvfs_inode_record *r)
{
    i->mode = r->mode;
    i->nlink = r->nlink;
    i->fork = r->fork;
    i->parent = r->parent;
    i->block_size_bytes = r->block_size_bytes;
}

static int
meta_inode_record(struct check *c, struct check_record *r, const struct kvfs_key_parts *parts,
                  struct kvfs_error *err)
{
    struct check_inode *i = meta_inode(c, parts->id);
    struct kvfs_inode_record record;
    int rc;

    if (i == NULL)
        return meta_oom(err);
    rc = kvfs_inode_decode(&record, &r->key, c->value, r->value_len);
    if (rc == -ENOTSUP) {
        i->flags |= CI_DAMAGED | CI_NEWER;
        return 0;
    }
    if (rc == 0) {
        i->flags |= CI_RECORD;
        meta_inode_fill(i, &record);
        return 0;
    }
    i->flags |= CI_DAMAGED;
    kvfs_record_reseal(&r->key, c->value, r->value_len);
    if (kvfs_inode_decode(&record, &r->key, c->value, r->value_len) == 0) {
        i->flags |= CI_GUESS;
        meta_inode_fill(i, &record);
    }
    return 0;
}

static int
meta_contents_record(struct check *c, struct check_record *r, const struct kvfs_key_parts *parts,
                     struct kvfs_error *err)
{
    struct check_inode *i = meta_inode(c, parts->id);
    struct kvfs_contents_record record;
    int rc;

    if (i == NULL)
        return meta_oom(err);
    i->flags |= CI_PARTS;
    rc = kvfs_contents_decode(&record, &r->key, c->value, r->value_len);
    if (rc == 0) {
        i->flags |= CI_CONTENTS;
    } else {
        i->flags |= CI_CONTENTS_BAD | (rc == -ENOTSUP ? CI_NEWER : 0);
        kvfs_record_reseal(&r->key, c->value, r->value_len);
        if (kvfs_contents_decode(&record, &r->key, c->value, r->value_len) != 0)
            return 0;
        i->flags |= CI_SIZE_GUESS;
    }
    i->size_bytes = record.size_bytes;
    i->cut = record.cut;
    return 0;
}

/* The other records of an inode: judged by names, which knows the paths. */
static int
meta_part_record(struct check *c, struct check_record *r, const struct kvfs_key_parts *parts,
                 struct kvfs_error *err)
{
    struct check_inode *i = meta_inode(c, parts->id);
    const void *bytes;
    size_t len;

    if (i == NULL)
        return meta_oom(err);
    i->flags |= CI_PARTS;
    if (parts->kind == KVFS_KEY_DENTRY || parts->kind == KVFS_KEY_COOKIE)
        i->flags |= CI_CHILDREN;
    if (parts->kind == KVFS_KEY_COOKIE)
        kvfs_check_id_seen(c, parts->second);
    if (parts->kind == KVFS_KEY_SYMLINK)
        i->flags |= kvfs_bytes_decode(&bytes, &len, &r->key, c->value, r->value_len) == 0
                        ? CI_TARGET
                        : CI_TARGET_BAD;
    return 0;
}

static struct check_fork *
meta_fork(struct check *c, uint64_t fork, uint32_t flag)
{
    struct check_fork *f = kvfs_check_table_add(&c->forks, fork);

    if (f != NULL)
        f->flags |= flag;
    kvfs_check_id_seen(c, fork);
    return f;
}

/* Orphan and dead-fork records say all they say by their key. */
static int
meta_number_record(struct check *c, struct check_record *r, const struct kvfs_key_parts *parts,
                   struct kvfs_error *err)
{
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    uint64_t n;
    struct check_inode *i;

    if (parts->kind == KVFS_KEY_DEAD) {
        if (meta_fork(c, parts->id, CF_DEAD) == NULL)
            return meta_oom(err);
    } else {
        i = meta_inode(c, parts->id);
        if (i == NULL)
            return meta_oom(err);
        i->flags |= CI_ORPHAN;
    }
    if (kvfs_number_decode(&n, &r->key, c->value, r->value_len) == 0)
        return 0;
    (void)kvfs_check_where(c, "%s %" PRIu64,
                           parts->kind == KVFS_KEY_DEAD ? "dead fork" : "orphan inode", parts->id);
    kvfs_check_found(c, c->where, "written anew", "its record is " META_DAMAGED);
    return kvfs_check_put(c, &r->key, value, kvfs_number_encode(0, &r->key, value), err);
}

static int
meta_over_record(struct check *c, struct check_record *r, const struct kvfs_key_parts *parts,
                 struct kvfs_error *err)
{
    struct kvfs_over_record record;
    struct check_fork *f;

    kvfs_check_id_seen(c, parts->id);
    if (kvfs_over_decode(&record, &r->key, c->value, r->value_len) != 0)
        return 0; /* judged with the forks */
    f = meta_fork(c, record.top, CF_TOP);
    if (f == NULL)
        return meta_oom(err);
    f->below = parts->id;
    f->over_cut = parts->second;
    /* Adding moves the items: F is done with. */
    if (kvfs_check_table_add(&c->forks, parts->id) == NULL)
        return meta_oom(err);
    kvfs_check_fork(c, parts->id)->flags |= CF_BASE;
    return 0;
}

/* The fork is in the key; the inode only says whose lease protects it. */
static int
meta_pending_record(struct check *c, struct check_record *r, const struct kvfs_key_parts *parts,
                    struct kvfs_error *err)
{
    struct kvfs_pending_record record;
    struct kvfs_key dead;
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    int rc;

    if (meta_fork(c, parts->id, CF_PENDING) == NULL)
        return meta_oom(err);
    if (kvfs_pending_decode(&record, &r->key, c->value, r->value_len) == 0)
        return 0;
    (void)kvfs_check_where(c, "unfinished fork %" PRIu64, parts->id);
    kvfs_check_found(c, c->where, "left to be deleted", "its record is " META_DAMAGED);
    kvfs_key_dead(&dead, parts->id);
    rc = kvfs_check_put(c, &dead, value, kvfs_number_encode(0, &dead, value), err);
    return rc < 0 ? rc : kvfs_check_del(c, &r->key, err);
}

static int
meta_super_record(struct check *c, struct check_record *r)
{
    int rc = kvfs_super_decode(&c->super, &r->key, c->value, r->value_len);

    /* A damaged or missing one is judged by check.c. */
    c->super_ok = rc == 0;
    c->super_newer = rc == -ENOTSUP;
    c->extra_keys = rc == 0 && c->super.features_compat != 0;
    return 0;
}

static int
meta_counter_record(struct check *c, struct check_record *r, const struct kvfs_key_parts *parts,
                    struct kvfs_error *err)
{
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    uint64_t n;
    int rc = kvfs_number_decode(&n, &r->key, c->value, r->value_len);

    if (parts->second == KVFS_COUNTER_MOVES && rc != 0) { /* any number will do */
        kvfs_check_found(c, "counter of moves", "written anew", "its record is " META_DAMAGED);
        return kvfs_check_put(c, &r->key, value, kvfs_number_encode(1, &r->key, value), err);
    }
    if (parts->second == KVFS_COUNTER_MOVES || rc != 0)
        return 0; /* judged at the end, when the right value is known */
    c->counter[parts->second] = n;
    c->counter_ok[parts->second] = true;
    return 0;
}

static int
meta_dispatch(struct check *c, struct check_record *r, const struct kvfs_key_parts *parts,
              struct kvfs_error *err)
{
    switch (parts->kind) {
    case KVFS_KEY_SUPER:
        return meta_super_record(c, r);
    case KVFS_KEY_COUNTER:
        return meta_counter_record(c, r, parts, err);
    case KVFS_KEY_INODE:
        return meta_inode_record(c, r, parts, err);
    case KVFS_KEY_CONTENTS:
        return meta_contents_record(c, r, parts, err);
    case KVFS_KEY_DENTRY:
    case KVFS_KEY_COOKIE:
    case KVFS_KEY_XATTR:
    case KVFS_KEY_SYMLINK:
        return meta_part_record(c, r, parts, err);
    case KVFS_KEY_ORPHAN:
    case KVFS_KEY_DEAD:
        return meta_number_record(c, r, parts, err);
    case KVFS_KEY_OVER:
        return meta_over_record(c, r, parts, err);
    case KVFS_KEY_PENDING:
        return meta_pending_record(c, r, parts, err);
    case KVFS_KEY_HOLE: /* judged with the forks */
        return 0;
    }
    return 0;
}

static int
meta_record(struct check *c, struct check_record *r, struct kvfs_error *err)
{
    struct kvfs_key_parts parts;
    struct kvfs_error local;
    int rc = kvfs_check_step(c, 1);

    if (rc < 0)
        return rc;
    if (kvfs_check_key(&r->key, &parts) != 0) {
        if (c->extra_keys)
            return 0;
        kvfs_check_found(c, kvfs_check_where_key(c, &r->key), "removed",
                         "no record of this format has such a key");
        return kvfs_check_del(c, &r->key, err);
    }
    rc = kvfs_check_value(c, r, &local);
    if (rc == -EIO) {
        c->incomplete = true;
        kvfs_check_found(c, kvfs_check_where_key(c, &r->key), NULL, "cannot be read: %s",
                         local.msg);
        return 0;
    }
    if (rc < 0) {
        if (err != NULL)
            *err = local;
        return rc;
    }
    return meta_dispatch(c, r, &parts, err);
}

/* Whose fork is it: known once all records were seen. */
static int
meta_own_forks(struct check *c, struct kvfs_error *err)
{
    for (size_t n = 0; n < c->inodes.count; n++) {
        struct check_inode *i = kvfs_check_table_at(&c->inodes, n);
        struct check_fork *f;

        kvfs_check_id_seen(c, i->ino);
        if ((i->flags & CI_RECORD) == 0 || !S_ISREG(i->mode))
            continue;
        f = meta_fork(c, i->fork, 0);
        if (f == NULL)
            return meta_oom(err);
        if ((f->flags & (CF_FILE | CF_TOP | CF_DEAD | CF_PENDING)) != 0) {
            i->flags |= CI_FORK_TAKEN;
            continue;
        }
        f->flags |= CF_FILE;
        f->ino = i->ino;
    }
    return 0;
}

int
kvfs_check_meta(struct check *c, struct kvfs_error *err)
{
    struct kvfs_key super;
    struct check_record r = {.cursor = NULL};
    int rc;

    /* The superblock comes late in key order but says whether unknown keys may be there. */
    kvfs_key_super(&super);
    r.key = super;
    if (kvfs_check_get(c, &super, c->value, &r.value_len, NULL) == 0)
        (void)meta_super_record(c, &r);
    rc = kvfs_check_scan(c, KVFS_META, NULL, NULL, true, meta_record, err);
    return rc < 0 ? rc : meta_own_forks(c, err);
}
