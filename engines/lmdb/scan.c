/* SPDX-License-Identifier: BSD-3-Clause
 *
 * scan.c - walking a range of keys, forward or in reverse.
 *
 * A scan's edges are keys of the contract or shorter, and DATA's stored keys
 * carry a tail (layout.c).  A stored key and its first 16 bytes lie on the same
 * side of such an edge: at or behind it, or before it.
 *
 *  1. All pages and records are judged on the way (walk.c), so a scan that ends
 *     has met every record that is there, and a damaged tree cannot make it endless.
 *  2. The key is copied inside the guard; the value's place is remembered and
 *     its bytes are copied on demand, also inside a guard.
 */
#include <errno.h>
#include <stdlib.h>

#include "lmdb_priv.h"

struct scan_edge {
    uint8_t key[KVFS_META_KEY_MAX];
    size_t len;
};

struct kvfs_db_cursor {
    struct kvfs_db_snap *snap;
    enum kvfs_keyspace keyspace;
    bool reverse;
    bool started;
    int ended; /* 1: at the end; negative: failed */
    bool has_hi;
    struct scan_edge lo, hi;
    bool has_record; /* the walk stands at one */
    uint8_t key[KVFS_META_KEY_MAX];
    struct kvfs_lmdb_walk walk;
};

static void
scan_edge_set(struct scan_edge *e, const void *key, size_t len)
{
    e->len = len;
    if (len > 0)
        memcpy(e->key, key, len);
}

static int
scan_edge_cmp(const void *key, size_t len, const struct scan_edge *e)
{
    return kvfs_page_key_cmp(key, len, e->key, e->len);
}

static int
scan_start(struct kvfs_db_cursor *c)
{
    int rc = kvfs_lmdb_walk_init(&c->walk, c->snap, c->keyspace);

    if (rc != 0 || c->walk.tree.root == PAGE_NONE)
        return rc != 0 ? rc : MDB_NOTFOUND;
    if (!c->reverse)
        return kvfs_lmdb_walk_seek(&c->walk, c->lo.key, c->lo.len);
    if (!c->has_hi)
        return kvfs_lmdb_walk_last(&c->walk);
    rc = kvfs_lmdb_walk_seek(&c->walk, c->hi.key, c->hi.len);
    return rc != 0 && rc != MDB_NOTFOUND ? rc : kvfs_lmdb_walk_prev(&c->walk);
}

static bool
scan_within(const struct kvfs_db_cursor *c)
{
    if (c->reverse)
        return scan_edge_cmp(c->walk.key, c->walk.key_len, &c->lo) >= 0;
    return !c->has_hi || scan_edge_cmp(c->walk.key, c->walk.key_len, &c->hi) < 0;
}

static int
scan_next_guarded(void *arg)
{
    struct kvfs_db_cursor *c = arg;
    int rc;

    if (!c->started)
        rc = scan_start(c);
    else
        rc = c->reverse ? kvfs_lmdb_walk_prev(&c->walk) : kvfs_lmdb_walk_next(&c->walk);
    if (rc == 0 && !scan_within(c))
        rc = MDB_NOTFOUND;
    if (rc == 0 && !kvfs_lmdb_value_sound(c->snap->db, &c->walk.value))
        rc = MDB_CORRUPTED;
    if (rc == 0)
        memcpy(c->key, c->walk.key, c->walk.key_len);
    return rc;
}

int
kvfs_lmdb_cursor_open(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *lo,
                      size_t lo_len, const void *hi, size_t hi_len, unsigned flags,
                      struct kvfs_db_cursor **cursorp, struct kvfs_error *err)
{
    struct kvfs_db_cursor *c;
    size_t max;
    int rc = kvfs_fork_check(snap->db->generation, snap->db->path, err);

    if (rc != 0)
        return rc;
    if (snap->broken)
        return kvfs_error_set(err, -ESTALE, "%s: the snapshot was lost to damage", snap->db->path);
    if (keyspace != KVFS_META && keyspace != KVFS_DATA)
        return kvfs_error_set(err, -EINVAL, "%s: no such keyspace", snap->db->path);
    max = keyspace == KVFS_DATA ? KVFS_DATA_KEY_LEN : KVFS_META_KEY_MAX;
    if (lo_len > max || hi_len > max)
        return kvfs_error_set(err, -EINVAL, "%s: an edge of a scan is longer than any key",
                              snap->db->path);
    c = malloc(sizeof(*c));
    if (c == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory for a scan", snap->db->path);
    c->snap = snap;
    c->keyspace = keyspace;
    c->reverse = (flags & KVFS_SCAN_REVERSE) != 0;
    c->started = false;
    c->ended = 0;
    c->has_hi = hi_len > 0;
    c->has_record = false;
    c->walk.db = snap->db; /* the rest of it is set by the start */
    c->walk.bad = NULL;
    scan_edge_set(&c->lo, lo, lo_len);
    scan_edge_set(&c->hi, hi, hi_len);
    *cursorp = c;
    return 0;
}

int
kvfs_lmdb_cursor_next(struct kvfs_db_cursor *c, const void **key, size_t *key_len,
                      size_t *value_len, struct kvfs_error *err)
{
    struct kvfs_db *db = c->snap->db;
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc != 0)
        return rc;
    if (c->snap->broken)
        return kvfs_error_set(err, -ESTALE, "%s: the snapshot was lost to damage", db->path);
    if (c->ended > 0)
        return 0;
    if (c->ended < 0)
        return kvfs_error_set(err, c->ended, "%s: the scan met damage before", db->path);
    rc = kvfs_lmdb_guard(scan_next_guarded, c);
    c->has_record = rc == 0;
    if (rc == 0) {
        c->started = true;
        *key = c->key;
        *key_len = c->walk.key_len;
        if (value_len != NULL)
            *value_len = c->walk.value.head_len + c->walk.value.tail_len;
        return 1;
    }
    if (rc == MDB_NOTFOUND) {
        c->ended = 1;
        return 0;
    }
    if (!c->started)
        kvfs_lmdb_snap_heal(c->snap); /* LMDB was asked for the trees */
    rc = kvfs_lmdb_walk_error(&c->walk, rc, "scanning", err);
    c->ended = rc;
    return rc;
}

struct scan_value {
    struct kvfs_db_cursor *cursor;
    size_t offset;
    const struct iovec *iov;
    int iov_count;
};

static int
scan_value_guarded(void *arg)
{
    struct scan_value *v = arg;

    kvfs_lmdb_value_copy(&v->cursor->walk.value, v->offset, v->iov, v->iov_count);
    return 0;
}

int
kvfs_lmdb_cursor_value(struct kvfs_db_cursor *c, size_t offset, const struct iovec *iov,
                       int iov_count, struct kvfs_error *err)
{
    struct scan_value v = {.cursor = c, .offset = offset, .iov = iov, .iov_count = iov_count};
    struct kvfs_db *db = c->snap->db;
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc != 0)
        return rc;
    if (!c->has_record)
        return kvfs_error_set(err, -EINVAL, "%s: the scan is not at a record", db->path);
    if (c->snap->broken)
        return kvfs_error_set(err, -ESTALE, "%s: the snapshot was lost to damage", db->path);
    rc = kvfs_lmdb_guard(scan_value_guarded, &v);
    return rc != 0 ? kvfs_lmdb_error(err, rc, db->path, "reading a value") : 0;
}

void
kvfs_lmdb_cursor_close(struct kvfs_db_cursor *c)
{
    free(c);
}
