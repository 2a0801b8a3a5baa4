/* SPDX-License-Identifier: BSD-3-Clause
 *
 * read.c - snapshots, gets and scans.
 *
 * A snapshot is RocksDB's own: a sequence number.  It begins in the list under
 * pool_lock, so that stat can tell the oldest.  Checksums of table and blob blocks
 * are judged on every read from the medium.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rocksdb_priv.h"

struct kvfs_db_cursor {
    struct kvfs_db_snap *snap;
    rocksdb_readoptions_t *read;
    rocksdb_iterator_t *iter;
    bool reverse, keys, started, row;
    size_t lo_len, hi_len;
    uint8_t lo[KVFS_META_KEY_MAX], hi[KVFS_META_KEY_MAX], key[KVFS_META_KEY_MAX];
};

static rocksdb_column_family_handle_t *
read_family(const struct kvfs_db *db, enum kvfs_keyspace keyspace)
{
    return db->family[keyspace == KVFS_META ? ROCKS_META : ROCKS_DATA];
}

int
kvfs_rocks_begin(struct kvfs_db *db, struct kvfs_db_snap **snapp, struct kvfs_error *err)
{
    struct kvfs_db_snap *snap;
    int rc = kvfs_fork_check(db->generation, db->folder, err);

    if (rc != 0)
        return rc;
    snap = calloc(1, sizeof(*snap));
    if (snap == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory for a snapshot", db->folder);
    snap->db = db;
    snap->read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(snap->read, 1);
    (void)pthread_mutex_lock(&db->pool_lock);
    snap->commits = atomic_load(&db->commits);
    snap->snapshot = rocksdb_create_snapshot(db->db);
    snap->older = db->newest;
    if (db->newest != NULL)
        db->newest->newer = snap;
    else
        db->oldest = snap;
    db->newest = snap;
    db->open_count++;
    (void)pthread_mutex_unlock(&db->pool_lock);
    rocksdb_readoptions_set_snapshot(snap->read, snap->snapshot);
    *snapp = snap;
    return 0;
}

void
kvfs_rocks_end(struct kvfs_db_snap *snap)
{
    struct kvfs_db *db = snap->db;

    if (kvfs_fork_check(db->generation, db->folder, NULL) == 0) {
        (void)pthread_mutex_lock(&db->pool_lock);
        if (snap->older != NULL)
            snap->older->newer = snap->newer;
        else
            db->oldest = snap->newer;
        if (snap->newer != NULL)
            snap->newer->older = snap->older;
        else
            db->newest = snap->older;
        db->open_count--;
        (void)pthread_mutex_unlock(&db->pool_lock);
        rocksdb_release_snapshot(db->db, snap->snapshot);
        rocksdb_readoptions_destroy(snap->read);
    }
    free(snap);
}

static void
read_copy(const char *value, size_t len, size_t offset, const struct iovec *iov, int iov_count)
{
    for (int i = 0; i < iov_count && offset < len; i++) {
        size_t n = iov[i].iov_len < len - offset ? iov[i].iov_len : len - offset;

        if (n > 0)
            memcpy(iov[i].iov_base, value + offset, n);
        offset += n;
    }
}

int
kvfs_rocks_get(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *key,
               size_t key_len, size_t offset, const struct iovec *iov, int iov_count,
               size_t *value_len, struct kvfs_error *err)
{
    struct kvfs_db *db = snap->db;
    rocksdb_pinnableslice_t *slice;
    const char *value;
    char *text = NULL;
    size_t len;
    int rc = kvfs_fork_check(db->generation, db->folder, err);

    if (rc != 0)
        return rc;
    if (key_len == 0 || key_len > KVFS_META_KEY_MAX ||
        (keyspace == KVFS_DATA && key_len != KVFS_DATA_KEY_LEN))
        return kvfs_error_set(err, -EINVAL, "%s: a key of %zu bytes", db->folder, key_len);
    slice = rocksdb_get_pinned_cf(db->db, snap->read, read_family(db, keyspace), key, key_len,
                                  &text);
    if (text != NULL)
        return kvfs_rocks_error(err, text, db->folder, "reading");
    if (slice == NULL)
        return kvfs_error_set(err, -ENOENT, "%s: no such record", db->folder);
    value = rocksdb_pinnableslice_value(slice, &len);
    read_copy(value, len, offset, iov, iov_count);
    if (value_len != NULL)
        *value_len = len;
    rocksdb_pinnableslice_destroy(slice);
    return 0;
}

/* --- scans ------------------------------------------------------------------------- */

int
kvfs_rocks_cursor_open(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *lo,
                       size_t lo_len, const void *hi, size_t hi_len, unsigned flags,
                       struct kvfs_db_cursor **cursorp, struct kvfs_error *err)
{
    struct kvfs_db *db = snap->db;
    size_t max = keyspace == KVFS_DATA ? KVFS_DATA_KEY_LEN : KVFS_META_KEY_MAX;
    struct kvfs_db_cursor *c;
    int rc = kvfs_fork_check(db->generation, db->folder, err);

    if (rc != 0)
        return rc;
    if ((keyspace != KVFS_META && keyspace != KVFS_DATA) || lo_len > max || hi_len > max)
        return kvfs_error_set(err, -EINVAL, "%s: no such range", db->folder);
    c = calloc(1, sizeof(*c));
    if (c == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory for a scan", db->folder);
    c->snap = snap;
    c->reverse = (flags & KVFS_SCAN_REVERSE) != 0;
    c->keys = (flags & KVFS_SCAN_KEYS_ONLY) != 0;
    c->lo_len = lo_len;
    c->hi_len = hi_len;
    if (lo_len > 0)
        memcpy(c->lo, lo, lo_len);
    if (hi_len > 0)
        memcpy(c->hi, hi, hi_len);
    c->read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(c->read, 1);
    rocksdb_readoptions_set_snapshot(c->read, snap->snapshot);
    if (lo_len > 0)
        rocksdb_readoptions_set_iterate_lower_bound(c->read, (const char *)c->lo, lo_len);
    if (hi_len > 0)
        rocksdb_readoptions_set_iterate_upper_bound(c->read, (const char *)c->hi, hi_len);
    c->iter = rocksdb_create_iterator_cf(db->db, c->read, read_family(db, keyspace));
    *cursorp = c;
    return 0;
}

static void
read_step(struct kvfs_db_cursor *c)
{
    if (c->started) {
        if (c->reverse)
            rocksdb_iter_prev(c->iter);
        else
            rocksdb_iter_next(c->iter);
    } else if (c->reverse) {
        rocksdb_iter_seek_to_last(c->iter);
    } else {
        rocksdb_iter_seek_to_first(c->iter);
    }
    c->started = true;
}

/* A range whose end is not behind its start is empty; RocksDB's bounds may not be so. */
static bool
read_is_empty(const struct kvfs_db_cursor *c)
{
    size_t len = c->lo_len < c->hi_len ? c->lo_len : c->hi_len;
    int cmp = memcmp(c->lo, c->hi, len);

    return c->hi_len > 0 && (cmp > 0 || (cmp == 0 && c->lo_len >= c->hi_len));
}

int
kvfs_rocks_cursor_next(struct kvfs_db_cursor *c, const void **key, size_t *key_len,
                       size_t *value_len, struct kvfs_error *err)
{
    struct kvfs_db *db = c->snap->db;
    char *text = NULL;
    const char *bytes;
    size_t len;
    int rc = kvfs_fork_check(db->generation, db->folder, err);

    if (rc != 0)
        return rc;
    if (read_is_empty(c) || (c->started && !rocksdb_iter_valid(c->iter)))
        return 0;
    read_step(c);
    c->row = rocksdb_iter_valid(c->iter) != 0;
    if (!c->row) {
        rocksdb_iter_get_error(c->iter, &text);
        return text != NULL ? kvfs_rocks_error(err, text, db->folder, "scanning") : 0;
    }
    bytes = rocksdb_iter_key(c->iter, &len);
    if (len > sizeof(c->key))
        return kvfs_error_set(err, -EIO, "%s: scanning: a key of %zu bytes: damaged", db->folder,
                              len);
    memcpy(c->key, bytes, len);
    *key = c->key;
    *key_len = len;
    if (!c->keys && value_len != NULL)
        (void)rocksdb_iter_value(c->iter, value_len);
    return 1;
}

int
kvfs_rocks_cursor_value(struct kvfs_db_cursor *c, size_t offset, const struct iovec *iov,
                        int iov_count, struct kvfs_error *err)
{
    struct kvfs_db *db = c->snap->db;
    const char *value;
    size_t len;
    int rc = kvfs_fork_check(db->generation, db->folder, err);

    if (rc != 0)
        return rc;
    if (!c->row || c->keys)
        return kvfs_error_set(err, -EINVAL, "%s: the scan is not at a value", db->folder);
    value = rocksdb_iter_value(c->iter, &len);
    read_copy(value, len, offset, iov, iov_count);
    return 0;
}

void
kvfs_rocks_cursor_close(struct kvfs_db_cursor *c)
{
    if (kvfs_fork_check(c->snap->db->generation, c->snap->db->folder, NULL) == 0) {
        rocksdb_iter_destroy(c->iter);
        rocksdb_readoptions_destroy(c->read);
    }
    free(c);
}
