/* SPDX-License-Identifier: BSD-3-Clause
 *
 * apply.c - one batch, one write transaction.
 *
 *  1. A batch is checked, judged against the state before it, found to have room
 *     and only then applied; until LMDB's commit begins, giving up means aborting
 *     the transaction and changes nothing.
 *  2. The environment always has MDB_NOMETASYNC: a commit writes its pages,
 *     flushes, and then writes the meta page.  The meta page of transaction N is
 *     flushed at the latest by the flush inside transaction N + 1, before page
 *     N + 1 is written; and N + 1 reuses no page that the tree of N - 1 or N
 *     needs.  So a power cut leaves N or N - 1: KVFS_ORDERED, and KVFS_NONE is
 *     served by it.  MDB_NOSYNC would not do: the meta page could reach the
 *     medium before the pages it points to.
 *  3. KVFS_DURABLE adds one flush behind the meta page.  This equals LMDB's own
 *     default (a meta page written with O_DSYNC) in the number of flushes, also
 *     makes all earlier batches durable, and is made after the writer mutex was
 *     released.
 *  4. A fault inside the transaction (SIGBUS, SIGSEGV, an assertion) poisons the
 *     handle.  The transaction is then aborted inside a guard of its own, which
 *     releases the writer mutex; should even that fault, the mutex is robust and
 *     passes on when this thread or process ends.
 *  5. LMDB gives an environment up whose meta page it could not write, for reading
 *     too.  The handle is poisoned, and the next snapshot opens the environment
 *     anew, for reading.
 *  6. Before the first change the pages that LMDB will follow are judged (path.c):
 *     inside a write transaction a damaged page could do worse than fault.
 *  7. DATA values change their LMDB key with their tail (layout.c), so an update
 *     is a delete and a put at one cursor.
 *  8. Processes take turns by a lock on the file, not by LMDB's writer mutex, which
 *     is then always free: a waiter of that mutex which is killed after it was
 *     woken, while somebody else takes the mutex, leaves the other waiters asleep
 *     for ever (seen: futex word 0, one sleeper).  The kernel's locks do not.
 *
 *  9. Nothing is acknowledged that went into a file without a name.
 *
 * Sources: mdb.c, mdb_txn_commit() and mdb_env_write_meta(); lmdb.h,
 * MDB_NOMETASYNC ("may undo the last committed transaction").
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "lmdb_priv.h"

#define APPLY_READER_CHECK_EVERY 64u
#define APPLY_WAITS              50u /* for room that snapshots hold back */
#define APPLY_WAIT_NS            2000000L
#define APPLY_LOCK_AT            ((off_t)1 << 62) /* byte of data.mdb; LMDB locks none there */

struct apply {
    struct kvfs_db *db;
    const struct kvfs_batch *batch;
    struct kvfs_error *err;
    MDB_txn *txn;
    MDB_cursor *mc[2]; /* LMDB frees them with the transaction */
    bool at_end[2];    /* this stretch has passed the last key of the keyspace */
    uint32_t *order;
    size_t order_count;
    size_t failed_op; /* of an expectation */
    enum kvfs_lmdb_room_answer room;
    bool damage_told; /* ERR names the page */
    struct kvfs_lmdb_patience patience; /* that is left for room */
};

/* For kvfs_batch_check(). */
static const struct kvfs_engine_limits apply_limits = {
    .value_max_bytes = KVFS_LMDB_VALUE_MAX_BYTES,
    .batch_max_bytes = KVFS_LMDB_BATCH_MAX_BYTES,
    .batch_max_ops = KVFS_LMDB_BATCH_MAX_OPS,
};

/* --- expectations ---------------------------------------------------------------- */

/* Are bytes [from, from + len) of an operation's value those at BYTES? */
static bool
apply_slice_equals(const struct kvfs_op *op, size_t from, const uint8_t *bytes, size_t len)
{
    for (int i = 0; i < 2 && len > 0; i++) {
        size_t part = op->value[i].iov_len;
        size_t n;

        if (from >= part) {
            from -= part;
            continue;
        }
        n = part - from < len ? part - from : len;
        if (memcmp((const uint8_t *)op->value[i].iov_base + from, bytes, n) != 0)
            return false;
        bytes += n;
        len -= n;
        from = 0;
    }
    return len == 0;
}

static bool
apply_value_equals(const struct kvfs_lmdb_value *v, const struct kvfs_op *op)
{
    return v->head_len + v->tail_len == op->value[0].iov_len + op->value[1].iov_len &&
           apply_slice_equals(op, 0, v->head, v->head_len) &&
           apply_slice_equals(op, v->head_len, v->tail, v->tail_len);
}

static int
apply_find(struct apply *a, const struct kvfs_op *op, struct kvfs_lmdb_value *v)
{
    MDB_val key = lmdb_val(op->key, op->key_len);
    MDB_val data;
    bool split = op->keyspace == KVFS_DATA;
    int rc = mdb_cursor_get(a->mc[op->keyspace], &key, &data, split ? MDB_SET_RANGE : MDB_SET_KEY);

    return rc != 0 ? rc
                   : kvfs_lmdb_value_found(a->db, (enum kvfs_keyspace)op->keyspace, op->key, &key,
                                           &data, v);
}

/* 0, EAGAIN with failed_op, or a code. */
static int
apply_expect(struct apply *a)
{
    for (size_t i = 0; i < a->batch->ops_count; i++) {
        const struct kvfs_op *op = &a->batch->ops[i];
        struct kvfs_lmdb_value v;
        int rc;

        if (op->type != KVFS_OP_EXPECT && op->type != KVFS_OP_EXPECT_ABSENT)
            continue;
        rc = apply_find(a, op, &v);
        if (rc != 0 && rc != MDB_NOTFOUND)
            return rc;
        if (op->type == KVFS_OP_EXPECT_ABSENT ? rc == 0 : rc != 0 || !apply_value_equals(&v, op)) {
            a->failed_op = i;
            return EAGAIN;
        }
    }
    return 0;
}

/* --- operations -------------------------------------------------------------------- */

/* Copy bytes [from, from + len) of an operation's value. */
static void
apply_value_slice(const struct kvfs_op *op, size_t from, size_t len, void *to)
{
    uint8_t *out = to;

    for (int i = 0; i < 2 && len > 0; i++) {
        size_t part = op->value[i].iov_len;
        size_t n;

        if (from >= part) {
            from -= part;
            continue;
        }
        n = part - from < len ? part - from : len;
        memcpy(out, (const uint8_t *)op->value[i].iov_base + from, n);
        out += n;
        len -= n;
        from = 0;
    }
}

/* Put KEY with the check, if it goes there, and the first KEEP bytes of the
 * operation's value, written straight into LMDB's page. */
static int
apply_store(struct apply *a, const struct kvfs_op *op, MDB_val *key, size_t keep)
{
    size_t check = op->keyspace == KVFS_META ? KVFS_LMDB_CHECK_LEN : 0;
    MDB_val data = {.mv_size = check + keep};
    unsigned flags = MDB_RESERVE | (a->at_end[op->keyspace] ? MDB_APPEND : 0u);
    int rc = mdb_cursor_put(a->mc[op->keyspace], key, &data, flags);

    if (rc != 0)
        return rc;
    if (check > 0)
        kvfs_lmdb_layout_check(data.mv_data, op->key, op->key_len);
    apply_value_slice(op, 0, keep, (uint8_t *)data.mv_data + check);
    return 0;
}

static int
apply_data(struct apply *a, const struct kvfs_op *op)
{
    MDB_cursor *mc = a->mc[KVFS_DATA];
    uint8_t buf[KVFS_LMDB_KEY_BUF];
    size_t len = op->value[0].iov_len + op->value[1].iov_len;
    size_t keep = kvfs_lmdb_layout_keep(&a->db->layout, len);
    MDB_val key = lmdb_val(op->key, KVFS_DATA_KEY_LEN);
    MDB_val data;
    int rc = a->at_end[KVFS_DATA] ? MDB_NOTFOUND : mdb_cursor_get(mc, &key, &data, MDB_SET_RANGE);

    if (rc == MDB_NOTFOUND) {
        a->at_end[KVFS_DATA] = true;
    } else if (rc != 0) {
        return rc;
    } else if (key.mv_size < KVFS_DATA_KEY_LEN) {
        return MDB_CORRUPTED;
    } else if (memcmp(key.mv_data, op->key, KVFS_DATA_KEY_LEN) == 0) {
        rc = mdb_cursor_del(mc, 0);
        if (rc != 0)
            return rc;
    }
    if (op->type == KVFS_OP_DEL)
        return 0;
    memcpy(buf, op->key, KVFS_DATA_KEY_LEN);
    kvfs_lmdb_layout_check(buf + KVFS_DATA_KEY_LEN, op->key, KVFS_DATA_KEY_LEN);
    apply_value_slice(op, keep, len - keep, buf + KVFS_LMDB_DATA_HEAD);
    key = lmdb_val(buf, KVFS_LMDB_DATA_HEAD + len - keep);
    return apply_store(a, op, &key, keep);
}

static int
apply_meta(struct apply *a, const struct kvfs_op *op)
{
    MDB_cursor *mc = a->mc[KVFS_META];
    MDB_val key = lmdb_val(op->key, op->key_len);
    MDB_val data;
    int rc;

    if (op->type == KVFS_OP_PUT)
        return apply_store(a, op, &key, op->value[0].iov_len + op->value[1].iov_len);
    rc = mdb_cursor_get(mc, &key, &data, MDB_SET);
    if (rc == MDB_NOTFOUND)
        return 0;
    return rc != 0 ? rc : mdb_cursor_del(mc, 0);
}

static int
apply_range(struct apply *a, const struct kvfs_op *op)
{
    MDB_cursor *mc = a->mc[op->keyspace];
    size_t max = op->keyspace == KVFS_DATA ? KVFS_DATA_KEY_LEN : KVFS_META_KEY_MAX;
    MDB_val key = lmdb_val(op->key, op->key_len);
    MDB_val data;
    int rc;

    if (op->key_len == 0 && op->key_end_len == 0)
        return mdb_drop(a->txn, a->db->dbi[op->keyspace], 0);
    rc = mdb_cursor_get(mc, &key, &data, op->key_len > 0 ? MDB_SET_RANGE : MDB_FIRST);
    while (rc == 0) {
        size_t len = key.mv_size < max ? key.mv_size : max; /* without a tail */

        if (op->key_end_len > 0 &&
            kvfs_page_key_cmp(key.mv_data, len, op->key_end, op->key_end_len) >= 0)
            break;
        rc = mdb_cursor_del(mc, 0);
        if (rc == 0) /* after a delete this is the record that followed */
            rc = mdb_cursor_get(mc, &key, &data, MDB_NEXT);
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* Apply ops[first, end), among which is no range delete. */
static int
apply_stretch(struct apply *a, size_t first, size_t end)
{
    const struct kvfs_op *ops = a->batch->ops;
    int rc = 0;

    a->at_end[KVFS_META] = false;
    a->at_end[KVFS_DATA] = false;
    if (!kvfs_lmdb_order(ops, first, end, &a->order, &a->order_count))
        return ENOMEM;
    for (size_t i = 0; rc == 0 && i < a->order_count; i++) {
        const struct kvfs_op *op = &ops[a->order != NULL ? a->order[i] : first + i];

        if (op->type != KVFS_OP_PUT && op->type != KVFS_OP_DEL)
            continue;
        rc = op->keyspace == KVFS_DATA ? apply_data(a, op) : apply_meta(a, op);
    }
    free(a->order);
    a->order = NULL;
    return rc;
}

static int
apply_ops(struct apply *a)
{
    const struct kvfs_batch *b = a->batch;
    size_t first = 0;

    for (size_t i = 0; i <= b->ops_count; i++) {
        int rc;

        if (i < b->ops_count && b->ops[i].type != KVFS_OP_DEL_RANGE)
            continue;
        rc = first < i ? apply_stretch(a, first, i) : 0;
        if (rc == 0 && i < b->ops_count)
            rc = apply_range(a, &b->ops[i]);
        if (rc != 0)
            return rc;
        first = i + 1;
    }
    return 0;
}

/* --- the transaction -------------------------------------------------------------------- */

static int
apply_begin_guarded(void *arg)
{
    struct apply *a = arg;

    return mdb_txn_begin(a->db->env, NULL, 0, &a->txn);
}

static int
apply_work_guarded(void *arg)
{
    struct apply *a = arg;
    struct kvfs_lmdb_usage usage;
    struct kvfs_lmdb_need need;
    int rc = 0;

    for (int i = 0; rc == 0 && i < 2; i++)
        rc = mdb_cursor_open(a->txn, a->db->dbi[i], &a->mc[i]);
    if (rc == 0)
        rc = apply_expect(a);
    if (rc == 0)
        rc = kvfs_lmdb_usage(a->db, a->txn, &usage);
    if (rc != 0)
        return rc;
    kvfs_lmdb_need(a->db, a->batch, &usage, &need);
    a->room = kvfs_lmdb_room_check(a->db, &need, &usage, a->patience, a->err);
    if (a->room != KVFS_LMDB_ROOM_OK)
        return ENOSPC;
    rc = kvfs_lmdb_path_check(a->db, a->txn, a->batch, &need, a->err);
    a->damage_told = rc == MDB_CORRUPTED;
    return rc != 0 ? rc : apply_ops(a);
}

/* Change nothing, but in a transaction of its own (room.c). */
static int
apply_turn_guarded(void *arg)
{
    static const char name[] = "\0one more transaction";
    struct apply *a = arg;
    MDB_val key = lmdb_val(name, sizeof(name));
    MDB_val data = {.mv_size = 0};
    MDB_dbi dbi = a->db->dbi[KVFS_META];
    int rc = mdb_put(a->txn, dbi, &key, &data, MDB_NOOVERWRITE);

    return rc != 0 ? rc : mdb_del(a->txn, dbi, &key, NULL);
}

static int
apply_commit_guarded(void *arg)
{
    struct apply *a = arg;
    MDB_txn *txn = a->txn;

    return mdb_txn_commit(txn);
}

static int
apply_abort_guarded(void *arg)
{
    struct apply *a = arg;
    MDB_txn *txn = a->txn;

    a->txn = NULL;
    mdb_txn_abort(txn);
    return 0;
}

static void
apply_abort(struct apply *a)
{
    if (kvfs_lmdb_guard(apply_abort_guarded, a) != 0)
        a->db->wedged = true;
}

static int
apply_poison(struct apply *a, int rc, const char *what)
{
    atomic_store(&a->db->poisoned, 1);
    return kvfs_lmdb_error_io(a->err, rc, a->db->path, what);
}

/* Did a commit that failed leave the store as it was?  LMDB marks the
 * environment when the meta page could not be written. */
static bool
apply_commit_undone(struct apply *a)
{
    a->txn = NULL;
    if (kvfs_lmdb_guard(apply_begin_guarded, a) != 0)
        return false;
    apply_abort(a);
    return !a->db->wedged;
}

static int
apply_commit(struct apply *a)
{
    int rc = kvfs_lmdb_guard(apply_commit_guarded, a);

    if (rc == 0)
        return 0;
    if (rc == KVFS_LMDB_FAULT) {
        rc = apply_poison(a, rc, "committing a batch");
        apply_abort(a);
        return rc;
    }
    if (rc == EIO && kvfs_lmdb_room_exhausted(a->db))
        rc = ENOSPC; /* LMDB calls a short write an I/O error */
    if ((rc == ENOSPC || rc == EDQUOT || rc == EFBIG || rc == ENOMEM || rc == MDB_MAP_FULL ||
         rc == MDB_TXN_FULL) &&
        apply_commit_undone(a))
        return kvfs_lmdb_error(a->err, rc, a->db->path, "committing a batch");
    return apply_poison(a, rc, "committing a batch");
}

/* Errors before the commit: everything is undone by the abort. */
static int
apply_refuse(struct apply *a, int rc)
{
    int code;

    if (rc == KVFS_LMDB_FAULT)
        code = apply_poison(a, rc, "applying a batch");
    else if (rc == EAGAIN)
        code = kvfs_error_set(a->err, -EAGAIN, "%s: operation %zu finds another value",
                              a->db->path, a->failed_op);
    else if (a->room != KVFS_LMDB_ROOM_OK)
        code = -ENOSPC; /* told already, or tried again: success tells nothing */
    else if (a->damage_told)
        code = -EIO;
    else
        code = kvfs_lmdb_error(a->err, rc, a->db->path, "applying a batch");
    if (code == -EIO)
        atomic_store(&a->db->poisoned, 1);
    free(a->order);
    apply_abort(a);
    return code;
}

/* Begin, do WORK, commit.  *resized: another process has grown the store beyond
 * our map. */
static int
apply_transaction(struct apply *a, int (*work)(void *arg), bool *resized)
{
    int rc = kvfs_lmdb_guard(apply_begin_guarded, a);

    *resized = rc == MDB_MAP_RESIZED;
    if (rc == KVFS_LMDB_FAULT)
        a->db->wedged = true;
    if (rc == KVFS_LMDB_FAULT || rc == MDB_PANIC)
        return apply_poison(a, rc, "beginning a batch");
    if (rc != 0)
        return kvfs_lmdb_error(a->err, rc, a->db->path, "beginning a batch");
    a->room = KVFS_LMDB_ROOM_OK;
    a->damage_told = false;
    rc = kvfs_lmdb_guard(work, a);
    return rc != 0 ? apply_refuse(a, rc) : apply_commit(a);
}

static int
apply_locked(struct apply *a, bool *resized)
{
    int rc = apply_transaction(a, apply_work_guarded, resized);

    if (rc == -ENOSPC && a->room == KVFS_LMDB_ROOM_TURN) {
        a->patience.turns = false;
        rc = apply_transaction(a, apply_turn_guarded, resized);
        if (rc == 0)
            rc = apply_transaction(a, apply_work_guarded, resized);
    }
    if (rc != 0)
        return rc;
    kvfs_lmdb_room_reserve(a->db);
    if (++a->db->applies % APPLY_READER_CHECK_EVERY == 0)
        kvfs_lmdb_reader_check(a->db);
    return 0;
}

/* F_WRLCK waits for other processes, F_UNLCK lets them go on.  Where the file
 * system has no locks LMDB's mutex has to do. */
static void
apply_file_lock(struct kvfs_db *db, short type)
{
    struct flock fl = {
        .l_type = type, .l_whence = SEEK_SET, .l_start = APPLY_LOCK_AT, .l_len = 1};
    int fd;

    if (mdb_env_get_fd(db->env, &fd) != 0)
        return;
    while (fcntl(fd, F_OFD_SETLKW, &fl) != 0 && errno == EINTR)
        continue;
}

/* Was the file removed, or another put in its place?  What is written to it then
 * nobody will ever find again. */
static int
apply_file_there(struct kvfs_db *db, struct kvfs_error *err)
{
    mdb_filehandle_t fd;
    struct statx st; /* without times: a kernel with fine ones would write the inode once more */

    if (mdb_env_get_fd(db->env, &fd) != 0 ||
        statx(fd, "", AT_EMPTY_PATH, STATX_NLINK, &st) != 0 || st.stx_nlink > 0)
        return 0;
    atomic_store(&db->poisoned, 1);
    return kvfs_error_set(err, -EIO, "%s: was removed or replaced while it was in use", db->path);
}

/* One try, alone. */
static int
apply_once(struct apply *a, bool *resized)
{
    struct kvfs_db *db = a->db;
    int rc;

    if (atomic_load(&db->poisoned))
        return kvfs_error_set(a->err, -EIO, "%s: an earlier batch failed, open the store again",
                              db->path);
    (void)pthread_mutex_lock(&db->apply_lock);
    apply_file_lock(db, F_WRLCK);
    rc = apply_file_there(db, a->err);
    if (rc == 0)
        rc = apply_locked(a, resized);
    apply_file_lock(db, F_UNLCK);
    (void)pthread_mutex_unlock(&db->apply_lock);
    return rc;
}

int
kvfs_lmdb_apply(struct kvfs_db *db, const struct kvfs_batch *batch,
                enum kvfs_durability durability, struct kvfs_error *err)
{
    struct apply a = {.db = db, .batch = batch, .err = err};
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc != 0)
        return rc;
    if (db->readonly)
        return kvfs_error_set(err, -EROFS, "%s: opened readonly", db->path);
    rc = kvfs_batch_check(batch, &apply_limits, db->path, err);
    for (unsigned tries = 0, waits = 0; rc == 0;) {
        bool resized = false;

        a.room = KVFS_LMDB_ROOM_OK;
        a.patience = (struct kvfs_lmdb_patience){.turns = true, .waits = waits < APPLY_WAITS};
        rc = apply_once(&a, &resized);
        if (rc == -ENOSPC && a.room == KVFS_LMDB_ROOM_HELD) {
            (void)nanosleep(&(struct timespec){.tv_nsec = APPLY_WAIT_NS}, NULL);
            waits++;
            rc = 0;
            continue;
        }
        if (!resized || tries++ > 0)
            break;
        rc = kvfs_lmdb_map_grow(db, err);
    }
    if (rc == 0 && durability == KVFS_DURABLE)
        rc = kvfs_lmdb_sync(db, err);
    return rc;
}

int
kvfs_lmdb_sync(struct kvfs_db *db, struct kvfs_error *err)
{
    int rc = kvfs_fork_check(db->generation, db->path, err);

    if (rc != 0 || db->readonly)
        return rc;
    if (atomic_load(&db->poisoned))
        return kvfs_error_set(err, -EIO, "%s: an earlier batch failed, open the store again",
                              db->path);
    if (db->params.unsafe_nosync)
        return 0;
    /* Of two flushes at once the kernel tells only one that writing failed. */
    (void)pthread_mutex_lock(&db->sync_lock);
    rc = EIO;
    if (!atomic_load(&db->poisoned)) {
        kvfs_lmdb_hold(db);
        rc = mdb_env_sync(db->env, 1);
        kvfs_lmdb_unhold(db);
    }
    /* The kernel may have dropped the pages that it could not write. */
    if (rc != 0)
        atomic_store(&db->poisoned, 1);
    (void)pthread_mutex_unlock(&db->sync_lock);
    return rc == 0 ? apply_file_there(db, err)
                   : kvfs_lmdb_error_io(err, rc, db->path, "flushing");
}
