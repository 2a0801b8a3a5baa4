/* SPDX-License-Identifier: BSD-3-Clause
 *
 * apply.c - one batch, one write transaction.
 *
 *  1. A batch is checked, judged against the state before it, found to have room and
 *     only then applied; giving up before the commit is a rollback and changes nothing.
 *  2. ORDERED (and NONE) commits at synchronous = NORMAL: frames of the log carry
 *     running checksums, so a power cut leaves a prefix of them; a checkpoint syncs
 *     the log before it touches the database and the database before the log is
 *     begun anew.  DURABLE commits at FULL: the log is synced as well.
 *  3. The counters change in the same transaction, by what each statement changed.
 *  4. Checkpoints are made here, after a commit, when the log has grown to
 *     APPLY_CHECKPOINT_PAGES.  Readers may keep the log from beginning anew; when it
 *     has become several times that long, the checkpoint waits for them, but not for
 *     long: a snapshot may stay open for hours.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sqlite_priv.h"

#define APPLY_CHECKPOINT_PAGES 2000
#define APPLY_LOG_PAGES_MAX    (4 * APPLY_CHECKPOINT_PAGES)
#define APPLY_PATIENCE         15 /* times that it asks readers: 60 ms in all */

struct apply {
    struct kvfs_db *db;
    const struct kvfs_batch *batch;
    struct kvfs_error *err;
    int64_t added[2]; /* records, by keyspace */
    uint8_t *value;   /* a value in one piece */
    size_t value_cap;
    size_t failed_op;
};

/* For kvfs_batch_check(). */
static const struct kvfs_engine_limits apply_limits = {
    .value_max_bytes = KVFS_SQ_VALUE_MAX_BYTES,
    .batch_max_bytes = KVFS_SQ_BATCH_MAX_BYTES,
    .batch_max_ops = KVFS_SQ_BATCH_MAX_OPS,
};

/* --- operations ------------------------------------------------------------------ */

/* The value in one piece; NULL: no memory. */
static const void *
apply_value(struct apply *a, const struct kvfs_op *op, size_t *len)
{
    size_t n = op->value[0].iov_len, m = op->value[1].iov_len;

    *len = n + m;
    if (n + m == 0)
        return "";
    if (n == 0 || m == 0)
        return op->value[n == 0].iov_base;
    if (a->value_cap < n + m) {
        free(a->value);
        a->value_cap = n + m;
        a->value = malloc(a->value_cap);
        if (a->value == NULL) {
            a->value_cap = 0;
            return NULL;
        }
    }
    memcpy(a->value, op->value[0].iov_base, n);
    memcpy(a->value + n, op->value[1].iov_base, m);
    return a->value;
}

/* SQLITE_OK, SQLITE_ABORT with failed_op, or another code. */
static int
apply_expect(struct apply *a, size_t i)
{
    const struct kvfs_op *op = &a->batch->ops[i];
    bool absent = op->type == KVFS_OP_EXPECT_ABSENT, as_expected;
    sqlite3_stmt *stmt;
    const void *want, *found;
    size_t len;
    int rc;

    stmt = kvfs_sq_stmt(a->db->writer, SQ_GET + op->keyspace, &rc);
    if (stmt == NULL)
        return rc;
    rc = kvfs_sq_bind(stmt, 1, op->key, op->key_len);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW && !absent) {
        want = apply_value(a, op, &len);
        if (want == NULL)
            return SQLITE_NOMEM;
        found = sqlite3_column_blob(stmt, 0);
        as_expected = (size_t)sqlite3_column_bytes(stmt, 0) == len &&
                      (len == 0 || memcmp(found, want, len) == 0);
    } else {
        as_expected = rc == (absent ? SQLITE_DONE : SQLITE_ROW);
    }
    (void)sqlite3_reset(stmt);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        return rc;
    a->failed_op = i;
    return as_expected ? SQLITE_OK : SQLITE_ABORT;
}

/* Run WHICH with one or two blobs. */
static int
apply_step(struct apply *a, int which, const struct iovec *first, const struct iovec *second)
{
    int rc;
    sqlite3_stmt *stmt = kvfs_sq_stmt(a->db->writer, which, &rc);

    if (stmt == NULL)
        return rc;
    rc = kvfs_sq_bind(stmt, 1, first->iov_base, first->iov_len);
    if (rc == SQLITE_OK && second != NULL)
        rc = kvfs_sq_bind(stmt, 2, second->iov_base, second->iov_len);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    (void)sqlite3_reset(stmt);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static struct iovec
apply_blob(const void *bytes, size_t len)
{
    struct iovec v = {.iov_len = len};

    memcpy(&v.iov_base, &bytes, sizeof(bytes)); /* the type has no const */
    return v;
}

static int
apply_put(struct apply *a, const struct kvfs_op *op)
{
    size_t len;
    const void *bytes = apply_value(a, op, &len);
    struct iovec key = apply_blob(op->key, op->key_len), value = apply_blob(bytes, len);
    int rc;

    if (bytes == NULL)
        return SQLITE_NOMEM;
    rc = apply_step(a, SQ_UPDATE + op->keyspace, &key, &value);
    if (rc != SQLITE_OK || sqlite3_changes(a->db->writer->db) > 0)
        return rc;
    a->added[op->keyspace]++;
    return apply_step(a, SQ_INSERT + op->keyspace, &key, &value);
}

static int
apply_delete(struct apply *a, const struct kvfs_op *op)
{
    static const char *const all[] = {"DELETE FROM meta", "DELETE FROM data"};
    struct iovec key = apply_blob(op->key, op->key_len);
    struct iovec end = apply_blob(op->key_end, op->key_end_len);
    int rc;

    if (op->type == KVFS_OP_DEL)
        rc = apply_step(a, SQ_DELETE + op->keyspace, &key, NULL);
    else if (op->key_len == 0 && op->key_end_len == 0)
        rc = kvfs_sq_exec(a->db->writer, all[op->keyspace]); /* without a look at the records */
    else if (op->key_end_len == 0)
        rc = apply_step(a, SQ_DELETE_FROM + op->keyspace, &key, NULL);
    else
        rc = apply_step(a, SQ_DELETE_RANGE + op->keyspace, &key, &end);
    if (rc == SQLITE_OK)
        a->added[op->keyspace] -= sqlite3_changes64(a->db->writer->db);
    return rc;
}

static int
apply_ops(struct apply *a)
{
    const struct kvfs_batch *b = a->batch;
    sqlite3_stmt *stmt;
    int rc = SQLITE_OK;

    for (size_t i = 0; i < b->ops_count && rc == SQLITE_OK; i++) {
        const struct kvfs_op *op = &b->ops[i];

        if (op->type == KVFS_OP_PUT)
            rc = apply_put(a, op);
        else if (op->type == KVFS_OP_DEL || op->type == KVFS_OP_DEL_RANGE)
            rc = apply_delete(a, op);
    }
    stmt = rc == SQLITE_OK ? kvfs_sq_stmt(a->db->writer, SQ_COUNTS_ADD, &rc) : NULL;
    if (stmt == NULL)
        return rc;
    rc = sqlite3_bind_int64(stmt, 1, a->added[KVFS_META]);
    if (rc == SQLITE_OK)
        rc = sqlite3_bind_int64(stmt, 2, a->added[KVFS_DATA]);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    (void)sqlite3_reset(stmt);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* --- the transaction ------------------------------------------------------------------ */

/* Undo; where even that fails the outcome is unknown. */
static int
apply_give_up(struct apply *a, int code)
{
    struct sq_conn *w = a->db->writer;

    /* SQLite has rolled back by itself after some errors. */
    if (sqlite3_get_autocommit(w->db) == 0 && kvfs_sq_run(w, SQ_ROLLBACK) != SQLITE_OK &&
        sqlite3_get_autocommit(w->db) == 0)
        code = -EIO;
    if (code == -EIO)
        atomic_store(&a->db->poisoned, 1);
    return code;
}

static int
apply_refuse(struct apply *a, int rc, const char *what)
{
    int code;

    if (rc == SQLITE_ABORT)
        code = kvfs_error_set(a->err, -EAGAIN, "%s: operation %zu finds another value",
                              a->db->path, a->failed_op);
    else
        code = kvfs_sq_error(a->err, rc, a->db->writer, a->db->path, what);
    if (code != -EAGAIN && code != -ENOSPC && code != -ENOMEM && code != -E2BIG)
        code = -EIO;
    return apply_give_up(a, code);
}

static int
apply_synchronous(struct kvfs_db *db, bool full)
{
    int rc;

    if (db->unsafe_nosync || db->full == full)
        return SQLITE_OK;
    rc = kvfs_sq_exec(db->writer, full ? "PRAGMA synchronous = FULL"
                                       : "PRAGMA synchronous = NORMAL");
    if (rc == SQLITE_OK)
        db->full = full;
    return rc;
}

/* The log begins anew when everything in it is in the database and no reader looks at
 * it.  A long log is worth a moment's wait for readers, once for each part that it grew. */
static void
apply_checkpoint(struct kvfs_db *db)
{
    int mode = SQLITE_CHECKPOINT_PASSIVE;

    if (db->wal_pages < db->wal_pages_waited)
        db->wal_pages_waited = 0;
    if (db->wal_pages < APPLY_CHECKPOINT_PAGES)
        return;
    if (db->wal_pages >= db->wal_pages_waited + APPLY_LOG_PAGES_MAX) {
        db->wal_pages_waited = db->wal_pages;
        mode = SQLITE_CHECKPOINT_RESTART;
    }
    /* One that fails is made again later; the log still holds everything. */
    db->writer->patience = APPLY_PATIENCE;
    (void)sqlite3_wal_checkpoint_v2(db->writer->db, "main", mode, NULL, NULL);
    db->writer->patience = 0;
}

static int
apply_once(struct apply *a)
{
    struct kvfs_db *db = a->db;
    int rc = kvfs_sq_conn_cache(db->writer);

    if (rc == SQLITE_OK)
        rc = kvfs_sq_run(db->writer, SQ_BEGIN_IMMEDIATE);
    a->added[KVFS_META] = a->added[KVFS_DATA] = 0;
    if (rc != SQLITE_OK)
        return apply_refuse(a, rc, "beginning a batch");
    for (size_t i = 0; i < a->batch->ops_count && rc == SQLITE_OK; i++)
        if (a->batch->ops[i].type >= KVFS_OP_EXPECT)
            rc = apply_expect(a, i);
    if (rc != SQLITE_OK)
        return apply_refuse(a, rc, "applying a batch");
    rc = kvfs_sq_room_check(db, a->batch, a->err);
    if (rc != 0)
        return apply_give_up(a, rc);
    rc = apply_ops(a);
    if (rc != SQLITE_OK)
        return apply_refuse(a, rc, "applying a batch");
    rc = kvfs_sq_run(db->writer, SQ_COMMIT);
    return rc != SQLITE_OK ? apply_refuse(a, rc, "committing a batch") : 0;
}

static int
apply_locked(struct apply *a, enum kvfs_durability durability)
{
    struct kvfs_db *db = a->db;
    int rc = apply_synchronous(db, durability == KVFS_DURABLE);

    if (rc != SQLITE_OK)
        return apply_refuse(a, rc, "beginning a batch");
    rc = apply_once(a);
    if (rc == -ENOSPC && kvfs_sq_room_shrink(db)) /* the log may be all that is in the way */
        rc = apply_once(a);
    if (rc != 0)
        return rc;
    apply_checkpoint(db);
    kvfs_sq_room_reserve(db);
    return 0;
}

/* Is the file that FD has open still the one called PATH? */
static bool
apply_file_is(const char *path, int fd)
{
    struct stat here, ours;

    return stat(path, &here) == 0 && fstat(fd, &ours) == 0 && here.st_dev == ours.st_dev &&
           here.st_ino == ours.st_ino;
}

/* What is written to a file that was removed or replaced is lost. */
static int
apply_files_check(struct kvfs_db *db, struct kvfs_error *err)
{
    if (apply_file_is(db->path, db->file_fd) && apply_file_is(db->wal_path, db->wal_fd))
        return 0;
    atomic_store(&db->poisoned, 1);
    return kvfs_error_set(err, -EIO, "%s: the file or its log was removed or replaced", db->path);
}

int
kvfs_sq_apply(struct kvfs_db *db, const struct kvfs_batch *batch, enum kvfs_durability durability,
              struct kvfs_error *err)
{
    struct apply a = {.db = db, .batch = batch, .err = err};
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc != 0)
        return rc;
    if (db->readonly)
        return kvfs_error_set(err, -EROFS, "%s: opened readonly", db->path);
    rc = kvfs_batch_check(batch, &apply_limits, db->path, err);
    if (rc != 0)
        return rc;
    (void)pthread_mutex_lock(&db->apply_lock);
    if (atomic_load(&db->poisoned))
        rc = kvfs_error_set(err, -EIO, "%s: an earlier batch failed, open the store again",
                            db->path);
    else
        rc = apply_files_check(db, err);
    if (rc == 0)
        rc = apply_locked(&a, durability);
    (void)pthread_mutex_unlock(&db->apply_lock);
    free(a.value);
    return rc;
}

int
kvfs_sq_sync(struct kvfs_db *db, struct kvfs_error *err)
{
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc != 0 || db->readonly)
        return rc;
    if (atomic_load(&db->poisoned))
        return kvfs_error_set(err, -EIO, "%s: an earlier batch failed, open the store again",
                              db->path);
    rc = apply_files_check(db, err);
    if (rc != 0)
        return rc;
    /* What is not in the log any more came into the database by a checkpoint, and
     * that was synced. */
    if (db->unsafe_nosync || fdatasync(db->wal_fd) == 0)
        return 0;
    atomic_store(&db->poisoned, 1);
    return kvfs_error_set(err, -EIO, "%s: syncing: %s", db->path, strerrordesc_np(errno));
}
