/* SPDX-License-Identifier: BSD-3-Clause
 *
 * faulty.c - an engine with a bug of one's choice, to prove that the contract
 * suite finds it (planted.sh).
 *
 * A module for kvfs_engine_find(): it wraps the built-in engine named by
 * FAULTY_INNER (default mem) and has the bug named by FAULTY_BUG (default none,
 * which must pass the suite).
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <kvfs/batch.h>
#include <kvfs/engine.h>

static const struct kvfs_engine *inner;
static const char *bug = "none";

struct kvfs_db {
    struct kvfs_db *real;
    atomic_bool full;
    pthread_mutex_t lock;
    struct kvfs_batch_builder *undo; /* lost-last: deletes of the keys put last */
};

struct kvfs_db_snap {
    struct kvfs_db *db;
    struct kvfs_db_snap *real[2]; /* by keyspace; the same unless torn */
};

struct kvfs_db_cursor {
    struct kvfs_db_cursor *real;
    bool skip; /* the first record */
};

static bool
is(const char *name)
{
    return strcmp(bug, name) == 0;
}

/* --- opening --------------------------------------------------------------------- */

static int
faulty_open(const struct kvfs_engine *self, const char *path,
            const struct kvfs_engine_options *options, struct kvfs_db **dbp, struct kvfs_error *err)
{
    struct kvfs_engine_options o = *options;
    struct kvfs_db *db = calloc(1, sizeof(*db));
    int r;

    (void)self;
    if (db == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory");
    if (is("always-creates"))
        o.create = true;
    if (is("readonly-writes"))
        o.readonly = false;
    if (is("never-full"))
        o.store_max_bytes = 0;
    if (is("params-ignored"))
        o.params = NULL;
    r = inner->open(inner, path, &o, &db->real, err);
    if (r != 0) {
        free(db);
        return r;
    }
    db->undo = kvfs_batch_new();
    (void)pthread_mutex_init(&db->lock, NULL);
    *dbp = db;
    return 0;
}

static void
faulty_close(struct kvfs_db *db)
{
    struct kvfs_batch batch;

    if (is("lost-last") && kvfs_batch_end(db->undo, &batch) == 0)
        (void)inner->apply(db->real, &batch, KVFS_DURABLE, NULL);
    inner->close(db->real);
    kvfs_batch_free(db->undo);
    (void)pthread_mutex_destroy(&db->lock);
    free(db);
}

static void
faulty_limits(struct kvfs_db *db, struct kvfs_engine_limits *limits)
{
    inner->limits(db->real, limits);
    if (is("limits-too-small"))
        limits->value_max_bytes -= 100;
}

static int
faulty_stat(struct kvfs_db *db, struct kvfs_engine_stat *stat, struct kvfs_error *err)
{
    int r = inner->stat(db->real, stat, err);

    if (r == 0 && is("miscounts"))
        stat->meta_records++;
    if (r == 0 && is("always-room"))
        stat->avail_bytes = (uint64_t)1 << 40;
    return r;
}

/* --- reading ----------------------------------------------------------------------- */

static int
faulty_begin(struct kvfs_db *db, struct kvfs_db_snap **snapp, struct kvfs_error *err)
{
    const struct timespec pause = {.tv_nsec = 2000000};
    struct kvfs_db_snap *snap = calloc(1, sizeof(*snap));
    int r;

    if (snap == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory");
    snap->db = db;
    r = inner->begin(db->real, &snap->real[0], err);
    snap->real[1] = snap->real[0];
    if (r == 0 && is("keyspaces-apart")) {
        (void)nanosleep(&pause, NULL);
        r = inner->begin(db->real, &snap->real[1], err);
    }
    if (r != 0) {
        free(snap);
        return r;
    }
    *snapp = snap;
    return 0;
}

static void
faulty_end(struct kvfs_db_snap *snap)
{
    if (snap->real[1] != snap->real[0])
        inner->end(snap->real[1]);
    inner->end(snap->real[0]);
    free(snap);
}

static int
faulty_move(struct kvfs_db_snap *snap, struct kvfs_error *err)
{
    int r = 0;

    if (is("snapshot-moves")) {
        inner->end(snap->real[0]);
        r = inner->begin(snap->db->real, &snap->real[0], err);
        snap->real[1] = snap->real[0];
    }
    return r;
}

static int
faulty_get(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *key, size_t key_len,
           size_t offset, const struct iovec *iov, int iov_count, size_t *value_len,
           struct kvfs_error *err)
{
    int r = faulty_move(snap, err);

    if (r != 0)
        return r;
    if (is("writes-past-value")) {
        for (int i = 0; i < iov_count; i++)
            if (iov[i].iov_len > 0)
                memset(iov[i].iov_base, 0, iov[i].iov_len);
    }
    r = inner->get(snap->real[keyspace], keyspace, key, key_len, is("offset-ignored") ? 0 : offset,
                   iov, iov_count, value_len, err);
    if (r == -ENOENT && is("error-code") && err != NULL)
        err->code = -EIO;
    if (r == -ENOENT && is("absent-is-empty")) {
        if (value_len != NULL)
            *value_len = 0;
        return 0;
    }
    return r;
}

static int
faulty_cursor_open(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *lo,
                   size_t lo_len, const void *hi, size_t hi_len, unsigned flags,
                   struct kvfs_db_cursor **cursorp, struct kvfs_error *err)
{
    struct kvfs_db_cursor *cursor = calloc(1, sizeof(*cursor));
    uint8_t longer[KVFS_META_KEY_MAX + 1] = {0};
    int r;

    if (cursor == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory");
    if (is("scan-end-inclusive") && hi_len > 0 && hi_len < KVFS_META_KEY_MAX) {
        memcpy(longer, hi, hi_len); /* the first key behind HI */
        hi = longer;
        hi_len++;
    }
    if (is("scan-start-exclusive") && lo_len > 0 && lo_len < KVFS_META_KEY_MAX) {
        memcpy(longer, lo, lo_len);
        lo = longer;
        lo_len++;
    }
    cursor->skip = is("reverse-skips-last") && (flags & KVFS_SCAN_REVERSE) != 0;
    r = faulty_move(snap, err);
    if (r == 0)
        r = inner->cursor_open(snap->real[keyspace], keyspace, lo, lo_len, hi, hi_len, flags,
                               &cursor->real, err);
    if (r != 0) {
        free(cursor);
        return r;
    }
    *cursorp = cursor;
    return 0;
}

static int
faulty_cursor_next(struct kvfs_db_cursor *cursor, const void **key, size_t *key_len,
                   size_t *value_len, struct kvfs_error *err)
{
    if (cursor->skip) {
        cursor->skip = false;
        (void)inner->cursor_next(cursor->real, key, key_len, value_len, err);
    }
    return inner->cursor_next(cursor->real, key, key_len, value_len, err);
}

static int
faulty_cursor_value(struct kvfs_db_cursor *cursor, size_t offset, const struct iovec *iov,
                    int iov_count, struct kvfs_error *err)
{
    return inner->cursor_value(cursor->real, is("scan-offset-ignored") ? 0 : offset, iov, iov_count,
                               err);
}

static void
faulty_cursor_close(struct kvfs_db_cursor *cursor)
{
    inner->cursor_close(cursor->real);
    free(cursor);
}

/* --- writing ------------------------------------------------------------------------ */

static bool
faulty_is_expect(const struct kvfs_op *op)
{
    return op->type == KVFS_OP_EXPECT || op->type == KVFS_OP_EXPECT_ABSENT;
}

static size_t
faulty_drop_expects(struct kvfs_op *ops, size_t n, size_t most)
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        if (most > 0 && faulty_is_expect(&ops[i]))
            most--;
        else
            ops[kept++] = ops[i];
    }
    return kept;
}

static void
faulty_change_op(struct kvfs_op *op)
{
    static uint8_t longer[2][KVFS_META_KEY_MAX + 1];
    static atomic_uint turn;

    if (op->type == KVFS_OP_DEL_RANGE && is("range-end-ignored"))
        op->key_end_len = 0;
    if (op->type == KVFS_OP_DEL_RANGE && is("range-end-inclusive") && op->keyspace == KVFS_META &&
        op->key_end_len > 0 && op->key_end_len < KVFS_META_KEY_MAX) {
        uint8_t *end = longer[atomic_fetch_add(&turn, 1) % 2];

        memcpy(end, op->key_end, op->key_end_len);
        end[op->key_end_len++] = 0;
        op->key_end = end;
    }
    if (op->type == KVFS_OP_PUT && is("second-piece-lost"))
        op->value[1].iov_len = 0;
    if (op->type == KVFS_OP_PUT && is("empty-deletes") &&
        op->value[0].iov_len + op->value[1].iov_len == 0)
        op->type = KVFS_OP_DEL;
    if (op->type == KVFS_OP_PUT && is("long-values-cut") && op->value[0].iov_len > 65536)
        op->value[0].iov_len = 65536;
}

/* What a lookup before the batch can find wrong. */
static int
faulty_look_first(struct kvfs_db *db, const struct kvfs_op *ops, size_t n, struct kvfs_error *err)
{
    struct kvfs_db_snap *snap;
    int r = inner->begin(db->real, &snap, err);

    for (size_t i = 0; i < n && r == 0; i++) {
        uint8_t value[64];
        struct iovec iov = {.iov_base = value, .iov_len = sizeof(value)};
        size_t len = 0;
        int got = inner->get(snap, (enum kvfs_keyspace)ops[i].keyspace, ops[i].key, ops[i].key_len,
                             0, &iov, 1, &len, NULL);

        if (is("missing-del-fails") && ops[i].type == KVFS_OP_DEL && got != 0)
            r = kvfs_error_set(err, got, "the key is not there");
        if (is("expect-races") && ops[i].type == KVFS_OP_EXPECT &&
            (got != 0 || len != ops[i].value[0].iov_len ||
             memcmp(value, ops[i].value[0].iov_base, len) != 0))
            r = kvfs_error_set(err, -EAGAIN, "the key holds something else");
    }
    inner->end(snap);
    (void)sched_yield();
    return r;
}

static void
faulty_hog(void)
{
    size_t len = (size_t)600 << 20;
    volatile char *p = malloc(len);

    for (size_t i = 0; p != NULL && i < len; i += 4096)
        p[i] = 1;
    free((void *)(uintptr_t)p);
}

static int
faulty_apply_ops(struct kvfs_db *db, const struct kvfs_op *ops, size_t n,
                 enum kvfs_durability durability, struct kvfs_error *err)
{
    struct kvfs_batch batch = {.ops = ops, .ops_count = n};

    return inner->apply(db->real, &batch, durability, err);
}

/* Where to cut a batch in two; 0: leave it whole. */
static size_t
faulty_cut(const struct kvfs_op *ops, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (is("torn") && faulty_is_expect(&ops[i]))
            return 0;
        if (is("expect-late") && faulty_is_expect(&ops[i]))
            return i;
    }
    return is("torn") ? n / 2 : 0;
}

static void
faulty_remember(struct kvfs_db *db, const struct kvfs_op *ops, size_t n)
{
    (void)pthread_mutex_lock(&db->lock);
    kvfs_batch_reset(db->undo);
    for (size_t i = 0; i < n; i++)
        if (ops[i].type == KVFS_OP_PUT)
            kvfs_batch_del(db->undo, (enum kvfs_keyspace)ops[i].keyspace, ops[i].key,
                           ops[i].key_len);
    (void)pthread_mutex_unlock(&db->lock);
}

static int
faulty_apply_changed(struct kvfs_db *db, struct kvfs_op *ops, size_t n,
                     enum kvfs_durability durability, struct kvfs_error *err)
{
    size_t cut;
    int r = 0;

    for (size_t i = 0; i < n; i++) {
        faulty_change_op(&ops[i]);
        if (ops[i].type == KVFS_OP_DEL_RANGE && is("hog"))
            faulty_hog();
        if (ops[i].type == KVFS_OP_DEL_RANGE && is("crash"))
            abort();
    }
    for (size_t i = 0; i < n / 2 && is("order-reversed"); i++) {
        struct kvfs_op op = ops[i];

        ops[i] = ops[n - 1 - i];
        ops[n - 1 - i] = op;
    }
    if (is("missing-del-fails") || is("expect-races"))
        r = faulty_look_first(db, ops, n, err);
    if (r != 0)
        return r;
    if (is("expect-races") || is("expects-ignored"))
        n = faulty_drop_expects(ops, n, n);
    if (is("one-expect-ignored"))
        n = faulty_drop_expects(ops, n, 1);
    cut = faulty_cut(ops, n);
    if (cut > 0)
        r = faulty_apply_ops(db, ops, cut, durability, err);
    if (r == 0)
        r = faulty_apply_ops(db, ops + cut, n - cut, durability, err);
    if (r == -EAGAIN && is("refused-changes"))
        (void)faulty_apply_ops(db, ops, faulty_drop_expects(ops, n, n), durability, NULL);
    return r;
}

static int
faulty_apply(struct kvfs_db *db, const struct kvfs_batch *batch, enum kvfs_durability durability,
             struct kvfs_error *err)
{
    size_t n = batch->ops_count;
    struct kvfs_op *ops = calloc(n + 1, sizeof(*ops));
    int r;

    if (ops == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory");
    if (n > 0)
        memcpy(ops, batch->ops, n * sizeof(*ops));
    if (is("full-for-ever") && atomic_load(&db->full))
        r = kvfs_error_set(err, -ENOSPC, "full");
    else
        r = faulty_apply_changed(db, ops, n, durability, err);
    if (r == -ENOSPC)
        atomic_store(&db->full, true);
    if (r == 0 && is("lost-last"))
        faulty_remember(db, batch->ops, n);
    free(ops);
    return r;
}

static int
faulty_sync(struct kvfs_db *db, struct kvfs_error *err)
{
    if (is("sync-fails"))
        return kvfs_error_set(err, -EIO, "no sync today");
    return inner->sync(db->real, err);
}

static int
faulty_verify(struct kvfs_db *db, kvfs_finding_fn *finding, void *arg, kvfs_progress_fn *progress,
              void *progress_arg, struct kvfs_error *err)
{
    int r = inner->verify(db->real, finding, arg, progress, progress_arg, err);

    if (is("false-alarm") && finding != NULL)
        finding(arg, "page 7", "looks odd");
    if (r == -EINTR && is("not-interrupted"))
        return 0;
    return r;
}

static const char *
faulty_version(const struct kvfs_engine *self)
{
    (void)self;
    return bug;
}

extern struct kvfs_engine kvfs_engine_plugin;
struct kvfs_engine kvfs_engine_plugin = {
    .abi = KVFS_ENGINE_ABI,
    .name = "faulty",
    .description = "an engine with a planted bug",
    .version = faulty_version,
    .open = faulty_open,
    .close = faulty_close,
    .limits = faulty_limits,
    .stat = faulty_stat,
    .begin = faulty_begin,
    .end = faulty_end,
    .get = faulty_get,
    .cursor_open = faulty_cursor_open,
    .cursor_next = faulty_cursor_next,
    .cursor_value = faulty_cursor_value,
    .cursor_close = faulty_cursor_close,
    .apply = faulty_apply,
    .sync = faulty_sync,
    .verify = faulty_verify,
};

__attribute__((constructor)) static void
faulty_load(void)
{
    /* NOLINTBEGIN(concurrency-mt-unsafe): while it is loaded there is one thread */
    const char *name = getenv("FAULTY_INNER"), *which = getenv("FAULTY_BUG");
    bool persistent = getenv("FAULTY_PERSISTENT") != NULL;
    /* NOLINTEND(concurrency-mt-unsafe) */

    if (which != NULL)
        bug = which;
    if (kvfs_engine_find(name != NULL ? name : "mem", &inner, NULL) != 0)
        abort();
    kvfs_engine_plugin.caps = inner->caps;
    /* The suite's cases that open again in one process work with mem as well. */
    if (persistent)
        kvfs_engine_plugin.caps |= KVFS_CAP_PERSISTENT;
}
