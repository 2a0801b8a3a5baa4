/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engine_cut.c - an engine whose power can be cut (engine_cut.h).
 */
#include "engine_cut.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <kvfs/batch.h>

#define CUT_STORES 8

struct cut_batch {
    struct kvfs_batch_builder *b;
};

struct cut_store {
    char *path;
    struct cut_batch *batches;
    size_t count, durable;
};

struct kvfs_db {
    struct kvfs_db *real;
    struct cut_store *store;
};

struct kvfs_db_snap {
    struct kvfs_db_snap *real;
};

static const struct kvfs_engine *inner;
static struct cut_store stores[CUT_STORES];

#define CUT_EXPORT __attribute__((visibility("default")))

extern CUT_EXPORT struct cut_control cut_control;
struct cut_control cut_control = {.steps = UINT64_MAX};

extern CUT_EXPORT cut_forget_fn cut_forget;
extern CUT_EXPORT cut_power_fn cut_power;
extern CUT_EXPORT cut_step_fn cut_step;

static uint64_t
cut_random(uint64_t bound)
{
    uint64_t z = cut_control.random += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % bound;
}

static void
cut_shorten(struct cut_store *s, size_t count)
{
    while (s->count > count)
        kvfs_batch_free(s->batches[--s->count].b);
    if (s->durable > count)
        s->durable = count;
}

void
cut_forget(void)
{
    for (size_t i = 0; i < CUT_STORES; i++) {
        cut_shorten(&stores[i], 0);
        free(stores[i].batches);
        free(stores[i].path);
        stores[i] = (struct cut_store){0};
    }
}

void
cut_power(bool volatile_too)
{
    for (size_t i = 0; i < CUT_STORES && !volatile_too; i++) {
        struct cut_store *s = &stores[i];

        cut_shorten(s, s->durable + (size_t)cut_random(s->count - s->durable + 1));
        s->durable = s->count; /* it lies on the medium now */
    }
    cut_control.dead = false;
}

bool
cut_step(void)
{
    uint64_t steps = atomic_load(&cut_control.steps);

    while (steps > 0)
        if (atomic_compare_exchange_weak(&cut_control.steps, &steps, steps - 1))
            return false;
    atomic_store(&cut_control.dead, true);
    return true;
}

static int
cut_dead(struct kvfs_error *err)
{
    return kvfs_error_set(err, -EIO, "the power is off");
}

/* --- the engine ------------------------------------------------------------------------ */

static struct cut_store *
cut_find(const char *path, bool create)
{
    for (size_t i = 0; i < CUT_STORES; i++)
        if (stores[i].path != NULL && strcmp(stores[i].path, path) == 0)
            return &stores[i];
    for (size_t i = 0; i < CUT_STORES && create; i++)
        if (stores[i].path == NULL) {
            stores[i].path = strdup(path);
            return &stores[i];
        }
    return NULL;
}

static int
cut_open(const struct kvfs_engine *self, const char *path,
         const struct kvfs_engine_options *options, struct kvfs_db **dbp, struct kvfs_error *err)
{
    const struct kvfs_engine_options o = {.create = true};
    struct cut_store *s = cut_find(path, options->create && !options->readonly);
    struct kvfs_db *db;
    char marker[4096];
    int rc;

    (void)self;
    if (s == NULL)
        return kvfs_error_set(err, -ENOENT, "%s: no store here", path);
    (void)snprintf(marker, sizeof(marker), "%s/mem", path);
    (void)unlink(marker); /* a fresh one */
    db = calloc(1, sizeof(*db));
    if (db == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory");
    db->store = s;
    rc = inner->open(inner, path, &o, &db->real, err);
    for (size_t i = 0; i < s->count && rc == 0; i++) {
        struct kvfs_batch batch;

        rc = kvfs_batch_end(s->batches[i].b, &batch);
        if (rc == 0)
            rc = inner->apply(db->real, &batch, KVFS_NONE, err);
    }
    if (rc == 0)
        *dbp = db;
    else
        free(db);
    return rc;
}

static void
cut_close(struct kvfs_db *db)
{
    inner->close(db->real);
    free(db);
}

static void
cut_limits(struct kvfs_db *db, struct kvfs_engine_limits *limits)
{
    inner->limits(db->real, limits);
}

static int
cut_stat(struct kvfs_db *db, struct kvfs_engine_stat *stat, struct kvfs_error *err)
{
    return inner->stat(db->real, stat, err);
}

static int
cut_begin(struct kvfs_db *db, struct kvfs_db_snap **snapp, struct kvfs_error *err)
{
    struct kvfs_db_snap *snap = calloc(1, sizeof(*snap));
    int rc = snap == NULL ? kvfs_error_set(err, -ENOMEM, "no memory")
                          : inner->begin(db->real, &snap->real, err);

    if (rc == 0)
        *snapp = snap;
    else
        free(snap);
    return rc;
}

static void
cut_end(struct kvfs_db_snap *snap)
{
    inner->end(snap->real);
    free(snap);
}

static int
cut_get(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *key, size_t key_len,
        size_t offset, const struct iovec *iov, int iov_count, size_t *value_len,
        struct kvfs_error *err)
{
    return inner->get(snap->real, keyspace, key, key_len, offset, iov, iov_count, value_len, err);
}

static int
cut_cursor_open(struct kvfs_db_snap *snap, enum kvfs_keyspace keyspace, const void *lo,
                size_t lo_len, const void *hi, size_t hi_len, unsigned flags,
                struct kvfs_db_cursor **cursorp, struct kvfs_error *err)
{
    return inner->cursor_open(snap->real, keyspace, lo, lo_len, hi, hi_len, flags, cursorp, err);
}

static int
cut_cursor_next(struct kvfs_db_cursor *cursor, const void **key, size_t *key_len,
                size_t *value_len, struct kvfs_error *err)
{
    return inner->cursor_next(cursor, key, key_len, value_len, err);
}

static int
cut_cursor_value(struct kvfs_db_cursor *cursor, size_t offset, const struct iovec *iov,
                 int iov_count, struct kvfs_error *err)
{
    return inner->cursor_value(cursor, offset, iov, iov_count, err);
}

static void
cut_cursor_close(struct kvfs_db_cursor *cursor)
{
    inner->cursor_close(cursor);
}

/* Remember the changes of a batch. */
static void
cut_remember(struct cut_store *s, const struct kvfs_batch *batch)
{
    struct kvfs_batch_builder *b = kvfs_batch_new();
    struct cut_batch *more = realloc(s->batches, (s->count + 1) * sizeof(*more));

    if (b == NULL || more == NULL)
        abort();
    for (size_t i = 0; i < batch->ops_count; i++) {
        const struct kvfs_op *op = &batch->ops[i];
        size_t n = op->value[0].iov_len, m = op->value[1].iov_len;
        char *whole = malloc(n + m + 1);

        if (whole == NULL)
            abort();
        for (size_t at = 0, p = 0; p < 2; at += op->value[p++].iov_len)
            if (op->value[p].iov_len > 0)
                memcpy(whole + at, op->value[p].iov_base, op->value[p].iov_len);
        if (op->type == KVFS_OP_PUT)
            kvfs_batch_put(b, (enum kvfs_keyspace)op->keyspace, op->key, op->key_len, whole, n + m);
        else if (op->type == KVFS_OP_DEL)
            kvfs_batch_del(b, (enum kvfs_keyspace)op->keyspace, op->key, op->key_len);
        else if (op->type == KVFS_OP_DEL_RANGE)
            kvfs_batch_del_range(b, (enum kvfs_keyspace)op->keyspace, op->key, op->key_len,
                                 op->key_end, op->key_end_len);
        free(whole);
    }
    s->batches = more;
    s->batches[s->count++].b = b;
}

static int
cut_apply(struct kvfs_db *db, const struct kvfs_batch *batch, enum kvfs_durability durability,
          struct kvfs_error *err)
{
    int rc;

    if (cut_control.dead || cut_step())
        return cut_dead(err);
    rc = inner->apply(db->real, batch, durability, err);
    if (rc != 0)
        return rc;
    cut_remember(db->store, batch);
    if (cut_step())
        return cut_dead(err);
    if (durability == KVFS_DURABLE)
        db->store->durable = db->store->count;
    return 0;
}

static int
cut_sync(struct kvfs_db *db, struct kvfs_error *err)
{
    if (cut_control.dead || cut_step())
        return cut_dead(err);
    db->store->durable = db->store->count;
    return cut_step() ? cut_dead(err) : 0;
}

static int
cut_verify(struct kvfs_db *db, kvfs_finding_fn *finding, void *arg, kvfs_progress_fn *progress,
           void *progress_arg, struct kvfs_error *err)
{
    return inner->verify(db->real, finding, arg, progress, progress_arg, err);
}

static const char *
cut_version(const struct kvfs_engine *self)
{
    (void)self;
    return "1";
}

extern CUT_EXPORT struct kvfs_engine kvfs_engine_plugin;
struct kvfs_engine kvfs_engine_plugin = {
    .abi = KVFS_ENGINE_ABI,
    .caps = KVFS_CAP_PERSISTENT | KVFS_CAP_ORDERED | KVFS_CAP_DURABLE | KVFS_CAP_COUNTS,
    .name = "cut",
    .description = "an engine whose power can be cut",
    .version = cut_version,
    .open = cut_open,
    .close = cut_close,
    .limits = cut_limits,
    .stat = cut_stat,
    .begin = cut_begin,
    .end = cut_end,
    .get = cut_get,
    .cursor_open = cut_cursor_open,
    .cursor_next = cut_cursor_next,
    .cursor_value = cut_cursor_value,
    .cursor_close = cut_cursor_close,
    .apply = cut_apply,
    .sync = cut_sync,
    .verify = cut_verify,
};

__attribute__((constructor)) static void
cut_load(void)
{
    if (kvfs_engine_find("mem", &inner, NULL) != 0)
        abort();
}
