/* SPDX-License-Identifier: BSD-3-Clause
 *
 * apply.c - one batch, one write batch of RocksDB.
 *
 *  1. A batch with expectations is judged and written while nobody else writes, for a
 *     store has one process.  Others are written beside each other: RocksDB makes one
 *     write and one sync of those that wait together.
 *  2. A write without sync is in the log, which is read up to its first damaged
 *     record: ORDERED.  With sync it is DURABLE, and so is all before it, since there
 *     is one log.
 *  3. RocksDB gives a store up for writing when it meets a full medium, and only
 *     opening it anew ends that: so room is looked for before a batch with puts is
 *     written, and what was deleted is compacted away first where it does not suffice.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "rocksdb_priv.h"

/* A store up to that size is rewritten at once, a larger one at most for a tenth of the time. */
#define APPLY_SMALL_BYTES   ((uint64_t)64 << 20)
#define APPLY_RECLAIM_PAUSE 9
#define APPLY_GRANT_BYTES   KVFS_ROCKS_HEAD_BYTES /* of room, before it is looked at again */

struct apply {
    struct kvfs_db *db;
    const struct kvfs_batch *batch;
    struct kvfs_error *err;
    uint64_t put_bytes;
    bool puts_data, deletes, expects;
    uint64_t granted_bytes; /* of the room */
};

/* For kvfs_batch_check(). */
static const struct kvfs_engine_limits apply_limits = {
    .value_max_bytes = KVFS_ROCKS_VALUE_MAX_BYTES,
    .batch_max_bytes = KVFS_ROCKS_BATCH_MAX_BYTES,
    .batch_max_ops = KVFS_ROCKS_BATCH_MAX_OPS,
};

/* What room the batch asks for. */
static void
apply_count(struct apply *a)
{
    for (size_t i = 0; i < a->batch->ops_count; i++) {
        const struct kvfs_op *op = &a->batch->ops[i];

        if (op->type == KVFS_OP_PUT) {
            a->put_bytes += op->value[0].iov_len + op->value[1].iov_len + op->key_len;
            a->puts_data = a->puts_data || op->keyspace == KVFS_DATA;
        }
        a->deletes = a->deletes || op->type == KVFS_OP_DEL || op->type == KVFS_OP_DEL_RANGE;
        a->expects = a->expects || op->type >= KVFS_OP_EXPECT;
    }
}

static rocksdb_column_family_handle_t *
apply_family(const struct kvfs_db *db, const struct kvfs_op *op)
{
    return db->family[op->keyspace == KVFS_META ? ROCKS_META : ROCKS_DATA];
}

/* --- expectations ------------------------------------------------------------- */

static bool
apply_equals(const struct kvfs_op *op, const char *value, size_t len)
{
    size_t n = op->value[0].iov_len, m = op->value[1].iov_len;

    return len == n + m && (n == 0 || memcmp(value, op->value[0].iov_base, n) == 0) &&
           (m == 0 || memcmp(value + n, op->value[1].iov_base, m) == 0);
}

static int
apply_expect(struct apply *a, size_t i, rocksdb_readoptions_t *read)
{
    const struct kvfs_op *op = &a->batch->ops[i];
    rocksdb_pinnableslice_t *slice;
    char *text = NULL;
    const char *value;
    bool right;
    size_t len;

    slice = rocksdb_get_pinned_cf(a->db->db, read, apply_family(a->db, op), op->key, op->key_len,
                                  &text);
    if (text != NULL)
        return kvfs_rocks_error(a->err, text, a->db->folder, "applying a batch");
    right = slice == NULL;
    if (slice != NULL) {
        value = rocksdb_pinnableslice_value(slice, &len);
        right = op->type == KVFS_OP_EXPECT && apply_equals(op, value, len);
        rocksdb_pinnableslice_destroy(slice);
    } else if (op->type == KVFS_OP_EXPECT) {
        right = false;
    }
    return right ? 0
                 : kvfs_error_set(a->err, -EAGAIN, "%s: operation %zu finds another value",
                                  a->db->folder, i);
}

static int
apply_expects(struct apply *a)
{
    rocksdb_readoptions_t *read = NULL;
    int rc = 0;

    for (size_t i = 0; i < a->batch->ops_count && rc == 0; i++) {
        if (a->batch->ops[i].type < KVFS_OP_EXPECT)
            continue;
        if (read == NULL) {
            read = rocksdb_readoptions_create();
            rocksdb_readoptions_set_verify_checksums(read, 1);
        }
        rc = apply_expect(a, i, read);
    }
    if (read != NULL)
        rocksdb_readoptions_destroy(read);
    return rc;
}

/* --- the batch ------------------------------------------------------------------ */

static void
apply_put(struct apply *a, rocksdb_writebatch_t *wb, const struct kvfs_op *op)
{
    const char *keys[1] = {op->key};
    const char *values[2] = {op->value[0].iov_base, op->value[1].iov_base};
    size_t key_lens[1] = {op->key_len};
    size_t value_lens[2] = {op->value[0].iov_len, op->value[1].iov_len};

    for (int i = 0; i < 2; i++)
        if (value_lens[i] == 0)
            values[i] = "";
    rocksdb_writebatch_putv_cf(wb, apply_family(a->db, op), 1, keys, key_lens, 2, values,
                               value_lens);
}

static int
apply_compare(const void *x, size_t x_len, const void *y, size_t y_len)
{
    size_t n = x_len < y_len ? x_len : y_len;
    int cmp = n > 0 ? memcmp(x, y, n) : 0;

    return cmp != 0 ? cmp : x_len < y_len ? -1 : x_len > y_len;
}

static void
apply_range(struct apply *a, rocksdb_writebatch_t *wb, const struct kvfs_op *op)
{
    uint8_t beyond[KVFS_META_KEY_MAX + 1]; /* behind every key */
    const void *end = op->key_end;
    size_t end_len = op->key_end_len;

    if (end_len == 0) {
        memset(beyond, 0xff, sizeof(beyond));
        end = beyond;
        end_len = sizeof(beyond);
    }
    if (apply_compare(op->key, op->key_len, end, end_len) < 0)
        rocksdb_writebatch_delete_range_cf(wb, apply_family(a->db, op),
                                           op->key_len > 0 ? op->key : "", op->key_len, end,
                                           end_len);
}

static int
apply_write(struct apply *a, enum kvfs_durability durability)
{
    rocksdb_writebatch_t *wb = rocksdb_writebatch_create();
    char *text = NULL;
    int rc = 0;

    for (size_t i = 0; i < a->batch->ops_count; i++) {
        const struct kvfs_op *op = &a->batch->ops[i];

        if (op->type == KVFS_OP_PUT)
            apply_put(a, wb, op);
        else if (op->type == KVFS_OP_DEL)
            rocksdb_writebatch_delete_cf(wb, apply_family(a->db, op), op->key, op->key_len);
        else if (op->type == KVFS_OP_DEL_RANGE)
            apply_range(a, wb, op);
    }
    rocksdb_write(a->db->db, durability == KVFS_DURABLE ? a->db->write_sync : a->db->write_plain,
                  wb, &text);
    rocksdb_writebatch_destroy(wb);
    if (text != NULL) {
        rc = kvfs_rocks_error(a->err, text, a->db->folder, "applying a batch");
        if (rc != -EIO)
            rc = kvfs_error_set(a->err, -EIO, "%s: a batch was stopped half way", a->db->folder);
        atomic_store(&a->db->poisoned, 1);
    }
    return rc;
}

/* --- room ------------------------------------------------------------------------ */

/* Is there room for NEED bytes beside those that are being written?  What is more is granted
 * to the batches that follow, in part. */
static bool
apply_room_look(struct apply *a, uint64_t need)
{
    uint64_t head = a->puts_data ? KVFS_ROCKS_HEAD_BYTES : KVFS_ROCKS_HEAD_BYTES / 2, room;
    struct kvfs_db *db = a->db;
    struct kvfs_rocks_room r;

    db->room_bytes = 0;
    kvfs_rocks_room(db, &r);
    kvfs_rocks_collect(db, &r);
    need += atomic_load(&db->writing_bytes);
    /* Compacting must not meet a full medium either. */
    room = r.medium_bytes > r.tables_bytes ? r.medium_bytes - r.tables_bytes : 0;
    room = room < r.room_bytes ? room : r.room_bytes;
    if (room < need + head)
        return false;
    if (room > need + KVFS_ROCKS_HEAD_BYTES)
        db->room_bytes = (room - need - KVFS_ROCKS_HEAD_BYTES) / 4;
    if (db->room_bytes > APPLY_GRANT_BYTES)
        db->room_bytes = APPLY_GRANT_BYTES;
    return true;
}

static bool
apply_grant(struct kvfs_db *db, uint64_t bytes)
{
    if (db->room_bytes < bytes)
        return false;
    db->room_bytes -= bytes;
    return true;
}

/* Under apply_lock. */
static int
apply_room(struct apply *a)
{
    uint64_t need;

    if (a->put_bytes == 0 ||
        (!a->puts_data && a->deletes && a->put_bytes <= KVFS_ROCKS_HEAD_BYTES / 8))
        return 0;
    need = 2 * a->put_bytes; /* in the log, and in a table or blob file */
    a->granted_bytes = need;
    if (apply_grant(a->db, need))
        return 0;
    if (apply_room_look(a, need))
        return 0;
    kvfs_rocks_squeeze(a->db);
    if (apply_room_look(a, need))
        return 0;
    a->granted_bytes = 0;
    return kvfs_error_set(a->err, -ENOSPC, "%s: %s full: the batch needs %llu KiB", a->db->folder,
                          a->db->limit_bytes > 0 ? "the store is" : "the file system is",
                          (unsigned long long)(need + KVFS_ROCKS_HEAD_BYTES) >> 10);
}

static uint64_t
apply_now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* What was deleted is room for the very next batch: where that is much beside what there is,
 * it goes now, and with it what lies in the log and will lie in a table.  That
 * rewrites the store, so of a large one only now and then. */
static void
apply_deleted(struct kvfs_db *db)
{
    struct kvfs_rocks_room r;
    uint64_t begun = apply_now_ms(), took;

    kvfs_rocks_room(db, &r);
    kvfs_rocks_collect(db, &r);
    /* Of what lies in tables RocksDB does not know what a deleted range has left of it. */
    if (r.room_bytes / 4 >= r.tables_bytes + r.memory_bytes + r.garbage_bytes ||
        (r.store_bytes > APPLY_SMALL_BYTES && begun < db->reclaim_next))
        return;
    kvfs_rocks_squeeze(db);
    took = apply_now_ms() - begun;
    db->reclaim_next = begun + took +
                       (APPLY_RECLAIM_PAUSE * took > 1000 ? APPLY_RECLAIM_PAUSE * took : 1000);
}

/* A store without CURRENT does not open any more: what is written to it is lost. */
static int
apply_store_check(struct kvfs_db *db, struct kvfs_error *err)
{
    if (access(db->current_path, F_OK) == 0)
        return 0;
    atomic_store(&db->poisoned, 1);
    return kvfs_error_set(err, -EIO, "%s: the store was removed: %s", db->current_path,
                          strerrordesc_np(errno));
}

static int
apply_poisoned(const struct apply *a)
{
    return !atomic_load(&a->db->poisoned)
               ? 0
               : kvfs_error_set(a->err, -EIO, "%s: an earlier batch failed, open the store again",
                                a->db->folder);
}

static int
apply_admit(struct apply *a)
{
    struct kvfs_db *db = a->db;
    int rc;

    (void)pthread_mutex_lock(&db->apply_lock);
    rc = apply_poisoned(a);
    if (rc == 0)
        rc = apply_store_check(db, a->err);
    if (rc == 0)
        rc = apply_room(a);
    (void)atomic_fetch_add(&db->writing_bytes, a->granted_bytes);
    (void)pthread_mutex_unlock(&db->apply_lock);
    return rc;
}

static void
apply_leave(struct apply *a, bool done)
{
    struct kvfs_db *db = a->db;

    if (done)
        (void)atomic_fetch_add(&db->commits, 1);
    (void)atomic_fetch_sub(&db->writing_bytes, a->granted_bytes); /* others may wait for room */
    if (!done || !a->deletes)
        return;
    (void)pthread_mutex_lock(&db->apply_lock);
    apply_deleted(db);
    (void)pthread_mutex_unlock(&db->apply_lock);
}

/* Alone, if anything is expected. */
static int
apply_alone(struct apply *a, enum kvfs_durability durability)
{
    int rc;

    (void)(a->expects ? pthread_rwlock_wrlock(&a->db->write_lock)
                      : pthread_rwlock_rdlock(&a->db->write_lock));
    rc = apply_poisoned(a);
    if (rc == 0)
        rc = apply_expects(a);
    if (rc == 0)
        rc = apply_write(a, durability);
    (void)pthread_rwlock_unlock(&a->db->write_lock);
    return rc;
}

/* --- the calls ----------------------------------------------------------------------- */

int
kvfs_rocks_apply(struct kvfs_db *db, const struct kvfs_batch *batch,
                 enum kvfs_durability durability, struct kvfs_error *err)
{
    struct apply a = {.db = db, .batch = batch, .err = err};
    int rc = kvfs_fork_check(db->generation, db->folder, err);

    if (rc != 0)
        return rc;
    if (db->readonly)
        return kvfs_error_set(err, -EROFS, "%s: opened readonly", db->folder);
    rc = kvfs_batch_check(batch, &apply_limits, db->folder, err);
    if (rc != 0)
        return rc;
    apply_count(&a);
    rc = apply_expects(&a); /* they come before room; they are judged once more when alone */
    if (rc == 0)
        rc = apply_admit(&a);
    if (rc != 0)
        return rc;
    rc = apply_alone(&a, durability);
    apply_leave(&a, rc == 0);
    return rc;
}

int
kvfs_rocks_sync(struct kvfs_db *db, struct kvfs_error *err)
{
    char *text = NULL;
    int rc = kvfs_fork_check(db->generation, db->folder, err);

    if (rc != 0 || db->readonly)
        return rc;
    if (atomic_load(&db->poisoned))
        return kvfs_error_set(err, -EIO, "%s: an earlier batch failed, open the store again",
                              db->folder);
    rc = apply_store_check(db, err);
    if (rc != 0 || db->unsafe_nosync)
        return rc;
    rocksdb_flush_wal(db->db, 1, &text);
    if (text == NULL)
        return 0;
    atomic_store(&db->poisoned, 1);
    (void)kvfs_rocks_error(err, text, db->folder, "syncing");
    return -EIO;
}
