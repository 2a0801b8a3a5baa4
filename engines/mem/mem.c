/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mem.c - the reference engine: exact, ordered, and gone with the process.
 *
 * A state of the store is a pair of trees (memtree.h) whose versions share
 * nodes.  A snapshot takes a reference to each root, so it costs nothing and
 * never changes.  A batch works on references of its own and becomes visible
 * when the store's roots are replaced; a batch that fails drops its trees, and
 * nothing has happened.
 *
 * Invariants:
 * 1. Roots are replaced, both at once, under `lock` and by the holder of
 *    `writer`; so a reader sees a batch whole or not at all.
 * 2. No tree is dropped under `lock`: freeing may take long.
 * 3. The bytes of the newest state count against the store's size; older ones
 *    that snapshots hold do not.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <kvfs/engine.h>

#include "../batch.h"
#include "memstore.h"
#include "memtree.h"

#define MEM_VALUE_MAX     ((uint32_t)16 << 20)
#define MEM_VALUE_BEST    4096u
#define MEM_BATCH_MAX     ((uint64_t)1 << 30)
#define MEM_BATCH_OPS_MAX ((uint64_t)1 << 22)

/* Space that only batches with deletes and without DATA puts may use. */
#define MEM_HEADROOM_MIN ((uint64_t)64 << 10)
#define MEM_HEADROOM_MAX ((uint64_t)4 << 20)

struct kvfs_db {
    struct kvfs_memstore *store;
    uint64_t max_bytes; /* of the store */
    uint64_t headroom;  /* of them, kept for deletes */
    bool readonly;
};

struct kvfs_db_snap {
    struct kvfs_memstore *store;
    struct kvfs_db_snap *older, *newer;
    struct kvfs_memtree *roots[2];
    uint64_t commits; /* of the store when it began */
};

struct kvfs_db_cursor {
    struct kvfs_memwalk walk;
    const struct kvfs_memrecord *record; /* present one; NULL before the first and at the end */
    bool reverse;
    size_t bound_len; /* of the side where the walk ends; 0: no bound */
    uint8_t bound[KVFS_META_KEY_MAX];
    uint8_t key[KVFS_META_KEY_MAX];
};

static const char *
mem_version(const struct kvfs_engine *self)
{
    (void)self;
    return "1";
}

static int
mem_open(const struct kvfs_engine *self, const char *path,
         const struct kvfs_engine_options *options, struct kvfs_db **dbp, struct kvfs_error *err)
{
    struct kvfs_db *db;
    int r;

    (void)self;
    if (options->params != NULL && options->params[0] != '\0')
        return kvfs_error_set(err, -EINVAL, "mem: unknown parameter '%.64s'", options->params);
    db = calloc(1, sizeof(*db));
    if (db == NULL)
        return kvfs_error_set(err, -ENOMEM, "mem: no memory for a handle");
    r = kvfs_memstore_claim(path, options->create && !options->readonly, &db->store, err);
    if (r != 0) {
        free(db);
        return r;
    }
    db->readonly = options->readonly;
    db->max_bytes = options->store_max_bytes;
    if (db->max_bytes == 0)
        db->max_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    db->headroom = db->max_bytes / 16;
    if (db->headroom < MEM_HEADROOM_MIN)
        db->headroom = MEM_HEADROOM_MIN;
    if (db->headroom > MEM_HEADROOM_MAX)
        db->headroom = MEM_HEADROOM_MAX;
    if (db->headroom > db->max_bytes)
        db->headroom = db->max_bytes;
    *dbp = db;
    return 0;
}

static void
mem_close(struct kvfs_db *db)
{
    kvfs_memstore_release(db->store);
    free(db);
}

static const struct kvfs_engine_limits mem_most = {
    .value_max_bytes = MEM_VALUE_MAX,
    .value_best_bytes = MEM_VALUE_BEST,
    .batch_max_bytes = MEM_BATCH_MAX,
    .batch_max_ops = MEM_BATCH_OPS_MAX,
    .snapshots_max = UINT32_MAX,
};

static void
mem_limits(struct kvfs_db *db, struct kvfs_engine_limits *limits)
{
    (void)db;
    *limits = mem_most;
}

static uint64_t
mem_used(struct kvfs_memtree *const roots[2])
{
    return kvfs_memtree_bytes(roots[KVFS_META]) + kvfs_memtree_bytes(roots[KVFS_DATA]);
}

static int
mem_stat(struct kvfs_db *db, struct kvfs_engine_stat *stat, struct kvfs_error *err)
{
    struct kvfs_memstore *s = db->store;
    uint64_t used, usable = db->max_bytes - db->headroom;

    (void)err;
    (void)pthread_mutex_lock(&s->lock);
    used = mem_used(s->roots);
    *stat = (struct kvfs_engine_stat){
        .meta_records = kvfs_memtree_count(s->roots[KVFS_META]),
        .data_records = kvfs_memtree_count(s->roots[KVFS_DATA]),
        .store_bytes = used,
        .used_bytes = used,
        .avail_bytes = used < usable ? usable - used : 0,
        .commits = s->commits,
        .readers = s->snaps,
        .readers_lag = s->oldest != NULL ? s->commits - s->oldest->commits : 0,
        .readers_pid = s->oldest != NULL ? (uint32_t)getpid() : 0,
    };
    (void)pthread_mutex_unlock(&s->lock);
    return 0;
}

/* --- reading ---------------------------------------------------------------- */

/* NULL without memory. */
static struct kvfs_db_snap *
mem_snap_new(struct kvfs_memstore *s)
{
    struct kvfs_db_snap *snap = calloc(1, sizeof(*snap));

    if (snap == NULL)
        return NULL;
    snap->store = s;
    (void)pthread_mutex_lock(&s->lock);
    snap->roots[KVFS_META] = kvfs_memtree_ref(s->roots[KVFS_META]);
    snap->roots[KVFS_DATA] = kvfs_memtree_ref(s->roots[KVFS_DATA]);
    snap->commits = s->commits;
    snap->older = s->newest;
    if (s->newest != NULL)
        s->newest->newer = snap;
    else
        s->oldest = snap;
    s->newest = snap;
    s->snaps++;
    (void)pthread_mutex_unlock(&s->lock);
    return snap;
}

static int
mem_begin(struct kvfs_db *db, struct kvfs_db_snap **snapp, struct kvfs_error *err)
{
    struct kvfs_db_snap *snap = mem_snap_new(db->store);

    if (snap == NULL)
        return kvfs_error_set(err, -ENOMEM, "mem: no memory for a snapshot");
    *snapp = snap;
    return 0;
}

static void
mem_end(struct kvfs_db_snap *snap)
{
    struct kvfs_memstore *s = snap->store;

    (void)pthread_mutex_lock(&s->lock);
    if (snap->older != NULL)
        snap->older->newer = snap->newer;
    else
        s->oldest = snap->newer;
    if (snap->newer != NULL)
        snap->newer->older = snap->older;
    else
        s->newest = snap->older;
    s->snaps--;
    (void)pthread_mutex_unlock(&s->lock);
    kvfs_memtree_drop(snap->roots[KVFS_META]);
    kvfs_memtree_drop(snap->roots[KVFS_DATA]);
    free(snap);
}

static void
mem_copy(const struct kvfs_memrecord *r, size_t offset, const struct iovec *iov, int iov_count)
{
    for (int i = 0; i < iov_count && offset < r->value_len; i++) {
        size_t n = r->value_len - offset;

        if (n > iov[i].iov_len)
            n = iov[i].iov_len;
        if (n > 0)
            memcpy(iov[i].iov_base, kvfs_memrecord_value(r) + offset, n);
        offset += n;
    }
}

static int
mem_get(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *key, size_t key_len,
        size_t offset, const struct iovec *iov, int iov_count, size_t *value_len,
        struct kvfs_error *err)
{
    const struct kvfs_memrecord *r = kvfs_memtree_get(snap->roots[keyspace], key, key_len);

    if (r == NULL)
        return kvfs_error_set(err, -ENOENT, "mem: no such key");
    mem_copy(r, offset, iov, iov_count);
    if (value_len != NULL)
        *value_len = r->value_len;
    return 0;
}

static int
mem_cursor_open(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *lo,
                size_t lo_len, const void *hi, size_t hi_len, unsigned flags,
                struct kvfs_db_cursor **cursorp, struct kvfs_error *err)
{
    bool reverse = (flags & KVFS_SCAN_REVERSE) != 0;
    struct kvfs_db_cursor *c;
    const void *start = reverse ? hi : lo, *end = reverse ? lo : hi;
    size_t start_len = reverse ? hi_len : lo_len, end_len = reverse ? lo_len : hi_len;

    if (start_len > KVFS_META_KEY_MAX || end_len > KVFS_META_KEY_MAX)
        return kvfs_error_set(err, -EINVAL, "mem: bound of a scan is longer than any key");
    c = calloc(1, sizeof(*c));
    if (c == NULL ||
        kvfs_memwalk_start(&c->walk, snap->roots[keyspace], start, start_len, reverse) != 0) {
        free(c);
        return kvfs_error_set(err, -ENOMEM, "mem: no memory for a scan");
    }
    c->reverse = reverse;
    c->bound_len = end_len;
    if (end_len > 0)
        memcpy(c->bound, end, end_len);
    *cursorp = c;
    return 0;
}

static int
mem_cursor_next(struct kvfs_db_cursor *c, const void **key, size_t *key_len, size_t *value_len,
                struct kvfs_error *err)
{
    const struct kvfs_memrecord *r;

    if (kvfs_memwalk_next(&c->walk, &r) != 0)
        return kvfs_error_set(err, -ENOMEM, "mem: no memory for a scan");
    if (r != NULL && c->bound_len > 0) {
        int cmp = kvfs_memkey_compare(r->bytes, r->key_len, c->bound, c->bound_len);

        if (c->reverse ? cmp < 0 : cmp >= 0) {
            kvfs_memwalk_end(&c->walk); /* further calls answer the end, too */
            r = NULL;
        }
    }
    c->record = r;
    if (r == NULL)
        return 0;
    memcpy(c->key, r->bytes, r->key_len);
    *key = c->key;
    *key_len = r->key_len;
    *value_len = r->value_len;
    return 1;
}

static int
mem_cursor_value(struct kvfs_db_cursor *c, size_t offset, const struct iovec *iov, int iov_count,
                 struct kvfs_error *err)
{
    if (c->record == NULL)
        return kvfs_error_set(err, -EINVAL, "mem: the scan is at no record");
    mem_copy(c->record, offset, iov, iov_count);
    return 0;
}

static void
mem_cursor_close(struct kvfs_db_cursor *c)
{
    kvfs_memwalk_end(&c->walk);
    free(c);
}

/* --- writing ---------------------------------------------------------------- */

static bool
mem_holds(const struct kvfs_memrecord *r, const struct iovec value[2])
{
    const uint8_t *at;

    if (r == NULL || r->value_len != value[0].iov_len + value[1].iov_len)
        return false;
    at = kvfs_memrecord_value(r);
    return (value[0].iov_len == 0 || memcmp(at, value[0].iov_base, value[0].iov_len) == 0) &&
           (value[1].iov_len == 0 ||
            memcmp(at + value[0].iov_len, value[1].iov_base, value[1].iov_len) == 0);
}

static int
mem_judge(struct kvfs_memtree *const roots[2], const struct kvfs_batch *batch,
          struct kvfs_error *err)
{
    for (size_t i = 0; i < batch->ops_count; i++) {
        const struct kvfs_op *op = &batch->ops[i];
        const struct kvfs_memrecord *r;

        if (op->type != KVFS_OP_EXPECT && op->type != KVFS_OP_EXPECT_ABSENT)
            continue;
        r = kvfs_memtree_get(roots[op->keyspace], op->key, op->key_len);
        if (op->type == KVFS_OP_EXPECT ? !mem_holds(r, op->value) : r != NULL)
            return kvfs_error_set(err, -EAGAIN, "mem: operation %zu expected another state", i);
    }
    return 0;
}

static int
mem_perform(struct kvfs_memstore *s, struct kvfs_memtree *roots[2], const struct kvfs_batch *batch)
{
    int r = 0;

    for (size_t i = 0; i < batch->ops_count && r == 0; i++) {
        const struct kvfs_op *op = &batch->ops[i];
        struct kvfs_memtree **root = &roots[op->keyspace];

        if (op->type == KVFS_OP_PUT)
            r = kvfs_memtree_put(root, &s->source, op->key, op->key_len, op->value, 2);
        else if (op->type == KVFS_OP_DEL)
            r = kvfs_memtree_del(root, op->key, op->key_len);
        else if (op->type == KVFS_OP_DEL_RANGE)
            r = kvfs_memtree_del_range(root, op->key, op->key_len, op->key_end, op->key_end_len);
    }
    return r;
}

/* Is there room for a state of USED bytes where there were BEFORE? */
static bool
mem_has_room(const struct kvfs_db *db, const struct kvfs_batch *batch, uint64_t before,
             uint64_t used)
{
    bool deletes = false, data_puts = false;

    if (used <= before)
        return true;
    for (size_t i = 0; i < batch->ops_count; i++) {
        const struct kvfs_op *op = &batch->ops[i];

        if (op->type == KVFS_OP_DEL || op->type == KVFS_OP_DEL_RANGE)
            deletes = true;
        else if (op->type == KVFS_OP_PUT && op->keyspace == KVFS_DATA)
            data_puts = true;
    }
    return used <= db->max_bytes - (deletes && !data_puts ? 0 : db->headroom);
}

/* Make BATCH on ROOTS, references of our own to the newest state. */
static int
mem_change(struct kvfs_db *db, struct kvfs_memtree *roots[2], const struct kvfs_batch *batch,
           struct kvfs_error *err)
{
    uint64_t before = mem_used(roots);
    int r = mem_judge(roots, batch, err);

    if (r != 0)
        return r;
    if (mem_perform(db->store, roots, batch) != 0)
        return kvfs_error_set(err, -ENOMEM, "mem: no memory for a batch");
    if (!mem_has_room(db, batch, before, mem_used(roots)))
        return kvfs_error_set(err, -ENOSPC, "mem: the store is full (%llu bytes)",
                              (unsigned long long)db->max_bytes);
    return 0;
}

static int
mem_apply(struct kvfs_db *db, const struct kvfs_batch *batch, enum kvfs_durability durability,
          struct kvfs_error *err)
{
    struct kvfs_memstore *s = db->store;
    struct kvfs_memtree *roots[2];
    int r;

    (void)durability; /* nothing outlives the process, whatever is asked for */
    if (db->readonly)
        return kvfs_error_set(err, -EROFS, "mem: the store is open readonly");
    r = kvfs_batch_check(batch, &mem_most, "mem", err);
    if (r != 0)
        return r;

    (void)pthread_mutex_lock(&s->writer);
    /* Only the holder of `writer` replaces roots, so they may be read here. */
    roots[KVFS_META] = kvfs_memtree_ref(s->roots[KVFS_META]);
    roots[KVFS_DATA] = kvfs_memtree_ref(s->roots[KVFS_DATA]);
    r = mem_change(db, roots, batch, err);
    if (r == 0) {
        struct kvfs_memtree *old[2];

        (void)pthread_mutex_lock(&s->lock);
        memcpy(old, s->roots, sizeof(old));
        memcpy(s->roots, roots, sizeof(old));
        s->commits++;
        (void)pthread_mutex_unlock(&s->lock);
        memcpy(roots, old, sizeof(old));
    }
    (void)pthread_mutex_unlock(&s->writer);
    kvfs_memtree_drop(roots[KVFS_META]); /* the old state, or what failed */
    kvfs_memtree_drop(roots[KVFS_DATA]);
    return r;
}

static int
mem_sync(struct kvfs_db *db, struct kvfs_error *err)
{
    (void)db;
    (void)err;
    return 0;
}

/* --- verify ----------------------------------------------------------------- */

struct mem_verify {
    kvfs_finding_fn *finding;
    void *arg;
};

static void
mem_verify_bad(void *arg, const struct kvfs_memrecord *r, const char *what)
{
    struct mem_verify *v = arg;
    char where[2 * 16 + 1] = "";

    for (size_t i = 0; i < r->key_len && i < 16; i++) {
        where[2 * i] = "0123456789abcdef"[r->bytes[i] >> 4];
        where[2 * i + 1] = "0123456789abcdef"[r->bytes[i] & 15];
        where[2 * i + 2] = '\0';
    }
    if (v->finding != NULL)
        v->finding(v->arg, where, what);
}

static int
mem_verify(struct kvfs_db *db, kvfs_finding_fn *finding, void *arg, kvfs_progress_fn *progress,
           void *progress_arg, struct kvfs_error *err)
{
    struct mem_verify v = {.finding = finding, .arg = arg};
    struct kvfs_db_snap *snap = mem_snap_new(db->store);
    int r = 0;

    if (snap == NULL)
        return kvfs_error_set(err, -ENOMEM, "mem: no memory for a snapshot");
    for (int ks = KVFS_META; ks <= KVFS_DATA && r == 0; ks++) {
        kvfs_memtree_check(snap->roots[ks], mem_verify_bad, &v);
        if (progress != NULL && progress(progress_arg, (uint64_t)ks + 1, 2) != 0)
            r = kvfs_error_set(err, -EINTR, "mem: verify was interrupted");
    }
    mem_end(snap);
    return r;
}

extern const struct kvfs_engine kvfs_engine_mem;
const struct kvfs_engine kvfs_engine_mem = {
    .abi = KVFS_ENGINE_ABI,
    .caps = KVFS_CAP_FORK | KVFS_CAP_COUNTS,
    .name = "mem",
    .description = "ordered trees in memory; gone when the process ends",
    .version = mem_version,
    .open = mem_open,
    .close = mem_close,
    .limits = mem_limits,
    .stat = mem_stat,
    .begin = mem_begin,
    .end = mem_end,
    .get = mem_get,
    .cursor_open = mem_cursor_open,
    .cursor_next = mem_cursor_next,
    .cursor_value = mem_cursor_value,
    .cursor_close = mem_cursor_close,
    .apply = mem_apply,
    .sync = mem_sync,
    .verify = mem_verify,
};
