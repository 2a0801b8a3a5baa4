/* SPDX-License-Identifier: BSD-3-Clause
 *
 * scan.c - walking a range of keys, forward or in reverse.
 *
 * A scan's edges are keys of the contract or shorter, and DATA's stored keys
 * carry a tail (layout.c).  A stored key and its first 16 bytes lie on the same
 * side of such an edge: at or behind it, or before it.
 *
 *  1. Keys come in strictly increasing (in reverse: decreasing) order and within
 *     the edges, or the scan ends with -EIO: so a damaged tree cannot make a
 *     scan endless.
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
    MDB_cursor *mc;
    enum kvfs_keyspace keyspace;
    bool reverse;
    bool started;
    int ended; /* 1: at the end; negative: failed */
    bool has_hi;
    struct scan_edge lo, hi;
    uint8_t key[KVFS_LMDB_KEY_BUF];
    size_t key_len; /* 0: no record yet */
    struct kvfs_lmdb_value value;
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

/* Move to the first stored key that is at or behind the edge. */
static int
scan_seek(struct kvfs_db_cursor *c, const struct scan_edge *e, MDB_val *key, MDB_val *data)
{
    *key = lmdb_val(e->key, e->len);
    return mdb_cursor_get(c->mc, key, data, e->len > 0 ? MDB_SET_RANGE : MDB_FIRST);
}

static int
scan_start(struct kvfs_db_cursor *c, MDB_val *key, MDB_val *data)
{
    int rc;

    if (!c->reverse)
        return scan_seek(c, &c->lo, key, data);
    if (!c->has_hi)
        return mdb_cursor_get(c->mc, key, data, MDB_LAST);
    rc = scan_seek(c, &c->hi, key, data);
    if (rc == MDB_NOTFOUND)
        return mdb_cursor_get(c->mc, key, data, MDB_LAST);
    return rc != 0 ? rc : mdb_cursor_get(c->mc, key, data, MDB_PREV);
}

static bool
scan_within(const struct kvfs_db_cursor *c, const void *key, size_t len)
{
    if (c->reverse)
        return scan_edge_cmp(key, len, &c->lo) >= 0;
    return !c->has_hi || scan_edge_cmp(key, len, &c->hi) < 0;
}

static int
scan_next_guarded(void *arg)
{
    struct kvfs_db_cursor *c = arg;
    MDB_val key, data;
    size_t len;
    int rc, cmp;

    if (c->started)
        rc = mdb_cursor_get(c->mc, &key, &data, c->reverse ? MDB_PREV : MDB_NEXT);
    else
        rc = scan_start(c, &key, &data);
    if (rc != 0)
        return rc;
    len = key.mv_size;
    c->value.head = data.mv_data;
    c->value.head_len = data.mv_size;
    c->value.tail = key.mv_data;
    c->value.tail_len = 0;
    if (c->keyspace == KVFS_DATA) {
        if (len < KVFS_DATA_KEY_LEN)
            return MDB_CORRUPTED;
        c->value.tail = (const uint8_t *)key.mv_data + KVFS_DATA_KEY_LEN;
        c->value.tail_len = len - KVFS_DATA_KEY_LEN;
        len = KVFS_DATA_KEY_LEN;
    }
    if (len == 0 || len > sizeof(c->key) || !kvfs_lmdb_value_sound(c->snap->db, &c->value))
        return MDB_CORRUPTED;
    if (c->key_len > 0) {
        cmp = kvfs_page_key_cmp(key.mv_data, len, c->key, c->key_len);
        if (c->reverse ? cmp >= 0 : cmp <= 0)
            return MDB_CORRUPTED;
    } else if (c->reverse ? c->has_hi && scan_edge_cmp(key.mv_data, len, &c->hi) >= 0
                          : scan_edge_cmp(key.mv_data, len, &c->lo) < 0) {
        return MDB_CORRUPTED;
    }
    memcpy(c->key, key.mv_data, len);
    c->key_len = len;
    return 0;
}

static int
scan_open_guarded(void *arg)
{
    struct kvfs_db_cursor *c = arg;
    MDB_dbi dbi = c->snap->db->dbi[c->keyspace];
    MDB_stat ignored;
    int rc = mdb_stat(c->snap->txn, dbi, &ignored); /* see read_seek_ready() */

    return rc != 0 ? rc : mdb_cursor_open(c->snap->txn, dbi, &c->mc);
}

int
kvfs_lmdb_cursor_open(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *lo,
                      size_t lo_len, const void *hi, size_t hi_len, unsigned flags,
                      struct kvfs_db_cursor **cursorp, struct kvfs_error *err)
{
    struct kvfs_db_cursor *c;
    size_t max;
    int rc = kvfs_lmdb_usable(snap->db, err);

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
    c->mc = NULL;
    c->keyspace = keyspace;
    c->reverse = (flags & KVFS_SCAN_REVERSE) != 0;
    c->started = false;
    c->ended = 0;
    c->has_hi = hi_len > 0;
    c->key_len = 0;
    scan_edge_set(&c->lo, lo, lo_len);
    scan_edge_set(&c->hi, hi, hi_len);
    rc = kvfs_lmdb_guard(scan_open_guarded, c);
    if (rc != 0) {
        free(c);
        kvfs_lmdb_snap_heal(snap);
        return kvfs_lmdb_error(err, rc, snap->db->path, "scanning");
    }
    *cursorp = c;
    return 0;
}

int
kvfs_lmdb_cursor_next(struct kvfs_db_cursor *c, const void **key, size_t *key_len,
                      size_t *value_len, struct kvfs_error *err)
{
    struct kvfs_db *db = c->snap->db;
    int rc = kvfs_lmdb_usable(db, err);

    if (rc != 0)
        return rc;
    if (c->snap->broken)
        return kvfs_error_set(err, -ESTALE, "%s: the snapshot was lost to damage", db->path);
    if (c->ended > 0)
        return 0;
    if (c->ended < 0)
        return kvfs_error_set(err, c->ended, "%s: the scan met damage before", db->path);
    rc = kvfs_lmdb_guard(scan_next_guarded, c);
    if (rc == 0 && scan_within(c, c->key, c->key_len)) {
        c->started = true;
        *key = c->key;
        *key_len = c->key_len;
        if (value_len != NULL)
            *value_len = c->value.head_len + c->value.tail_len;
        return 1;
    }
    c->key_len = 0;
    if (rc == 0 || rc == MDB_NOTFOUND) {
        c->ended = 1;
        return 0;
    }
    kvfs_lmdb_snap_heal(c->snap);
    rc = kvfs_lmdb_error(err, rc, db->path, "scanning");
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

    kvfs_lmdb_value_copy(&v->cursor->value, v->offset, v->iov, v->iov_count);
    return 0;
}

int
kvfs_lmdb_cursor_value(struct kvfs_db_cursor *c, size_t offset, const struct iovec *iov,
                       int iov_count, struct kvfs_error *err)
{
    struct scan_value v = {.cursor = c, .offset = offset, .iov = iov, .iov_count = iov_count};
    struct kvfs_db *db = c->snap->db;
    int rc = kvfs_lmdb_usable(db, err);

    if (rc != 0)
        return rc;
    if (c->key_len == 0)
        return kvfs_error_set(err, -EINVAL, "%s: the scan is not at a record", db->path);
    if (c->snap->broken)
        return kvfs_error_set(err, -ESTALE, "%s: the snapshot was lost to damage", db->path);
    rc = kvfs_lmdb_guard(scan_value_guarded, &v);
    return rc != 0 ? kvfs_lmdb_error(err, rc, db->path, "reading a value") : 0;
}

void
kvfs_lmdb_cursor_close(struct kvfs_db_cursor *c)
{
    if (kvfs_lmdb_usable(c->snap->db, NULL) == 0)
        mdb_cursor_close(c->mc);
    free(c);
}
