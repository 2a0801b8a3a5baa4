/* SPDX-License-Identifier: BSD-3-Clause
 *
 * hybrid.c - the hybrid engine: META in one engine, DATA in another.
 *
 *   pair.c    engines by their names, hybrid:META+DATA
 *   open.c    opening, closing
 *   apply.c   batches; the argument why a crash leaves one state
 *   intent.c  DATA operations kept in META; replay
 *   undo.c    taking META's half of a batch back
 *   read.c    snapshots, gets, scans
 *   copy.c    compact, backup
 *
 * Here: limits, stat, verify.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "hybrid_priv.h"

static void
hybrid_limits(struct kvfs_db *db, struct kvfs_engine_limits *limits)
{
    *limits = db->limits;
}

static int
hybrid_stat(struct kvfs_db *db, struct kvfs_engine_stat *stat, struct kvfs_error *err)
{
    const struct kvfs_engine *const *side = db->pair->side;
    struct kvfs_engine_stat m, d;
    uint64_t own;
    int rc = kvfs_fork_check(db->generation, db->folder, err);

    if (rc != 0)
        return rc;
    (void)pthread_mutex_lock(&db->apply_lock); /* both sides' numbers are of one state */
    rc = side[HYBRID_META]->stat(db->side[HYBRID_META], &m, err);
    if (rc == 0)
        rc = side[HYBRID_DATA]->stat(db->side[HYBRID_DATA], &d, err);
    own = 1 + atomic_load(&db->next) - atomic_load(&db->first); /* and the store's number */
    (void)pthread_mutex_unlock(&db->apply_lock);
    if (rc != 0)
        return rc;
    *stat = (struct kvfs_engine_stat){
        .meta_records = m.meta_records > own ? m.meta_records - own : 0,
        .data_records = d.data_records,
        .store_bytes = m.store_bytes + d.store_bytes,
        .used_bytes = m.used_bytes + d.used_bytes,
        .free_bytes = m.free_bytes + d.free_bytes,
        /* What goes to DATA lies in META first. */
        .avail_bytes = m.avail_bytes < d.avail_bytes ? m.avail_bytes : d.avail_bytes,
        .readers = m.readers > d.readers ? m.readers : d.readers,
        .readers_lag = m.readers_lag > d.readers_lag ? m.readers_lag : d.readers_lag,
        .readers_pid = m.readers_pid != 0 ? m.readers_pid : d.readers_pid,
    };
    return 0;
}

/* --- verify ------------------------------------------------------------------------- */

struct hybrid_verify {
    const char *keyspace, *engine;
    kvfs_finding_fn *finding;
    void *arg;
};

static void
hybrid_found(void *arg, const char *where, const char *what)
{
    const struct hybrid_verify *v = arg;
    char place[256];

    if (v->finding == NULL)
        return;
    (void)snprintf(place, sizeof(place), "%s (%s), %s", v->keyspace, v->engine, where);
    v->finding(v->arg, place, what);
}

static int
hybrid_verify(struct kvfs_db *db, kvfs_finding_fn *finding, void *arg, kvfs_progress_fn *progress,
              void *progress_arg, struct kvfs_error *err)
{
    static const char *const keyspaces[HYBRID_SIDES] = {"META", "DATA"};
    struct kvfs_hybrid_progress p = {.fn = progress, .arg = progress_arg};
    struct hybrid_verify v = {.finding = finding, .arg = arg};
    struct kvfs_error why = {0};
    int rc = kvfs_fork_check(db->generation, db->folder, err);

    for (int i = 0; i < HYBRID_SIDES && rc == 0; i++) {
        const struct kvfs_engine *engine = db->pair->side[i];

        v.keyspace = keyspaces[i];
        v.engine = engine->name;
        p.side = (unsigned)i;
        rc = engine->verify(db->side[i], hybrid_found, &v,
                            progress != NULL ? kvfs_hybrid_progress : NULL, &p, err);
    }
    if (rc != 0)
        return rc;
    rc = kvfs_hybrid_intent_verify(db, &why);
    if (rc != -EIO)
        return rc == 0 ? 0 : kvfs_error_set(err, rc, "%s", why.msg);
    if (finding != NULL)
        finding(arg, "META, intents", why.msg);
    return 0;
}

/* --- the engine --------------------------------------------------------------------- */

void
kvfs_hybrid_engine_init(struct kvfs_engine *engine)
{
    *engine = (struct kvfs_engine){
        .abi = KVFS_ENGINE_ABI,
        .description = "META in one engine, DATA in another",
        .close = kvfs_hybrid_close,
        .limits = hybrid_limits,
        .stat = hybrid_stat,
        .begin = kvfs_hybrid_begin,
        .end = kvfs_hybrid_end,
        .get = kvfs_hybrid_get,
        .cursor_open = kvfs_hybrid_cursor_open,
        .cursor_next = kvfs_hybrid_cursor_next,
        .cursor_value = kvfs_hybrid_cursor_value,
        .cursor_close = kvfs_hybrid_cursor_close,
        .apply = kvfs_hybrid_apply,
        .sync = kvfs_hybrid_sync,
        .verify = hybrid_verify,
        .backup = kvfs_hybrid_backup,
    };
}

/* `hybrid` without names opens any pair's store, by the file in its folder. */
static const struct kvfs_hybrid_pair hybrid_any;

static int
hybrid_open(const struct kvfs_engine *self, const char *path,
            const struct kvfs_engine_options *options, struct kvfs_db **dbp, struct kvfs_error *err)
{
    (void)self;
    return kvfs_hybrid_open(&hybrid_any, path, options, dbp, err);
}

static int
hybrid_compact_need_bytes(const struct kvfs_engine *self, const char *path, uint64_t *bytes,
                          struct kvfs_error *err)
{
    (void)self;
    return kvfs_hybrid_compact_need_bytes(&hybrid_any, path, bytes, err);
}

static int
hybrid_compact(const struct kvfs_engine *self, const char *path, kvfs_progress_fn *progress,
               void *progress_arg, struct kvfs_error *err)
{
    (void)self;
    return kvfs_hybrid_compact(&hybrid_any, path, progress, progress_arg, err);
}

static const char *
hybrid_version(const struct kvfs_engine *self)
{
    (void)self;
    return "1";
}

extern const struct kvfs_engine kvfs_engine_hybrid;
const struct kvfs_engine kvfs_engine_hybrid = {
    .abi = KVFS_ENGINE_ABI,
    .caps = 0, /* those of the two */
    .name = "hybrid",
    .description = "any two of these, as hybrid:META+DATA: META in one, DATA in the other",
    .version = hybrid_version,
    .open = hybrid_open,
    .close = kvfs_hybrid_close,
    .limits = hybrid_limits,
    .stat = hybrid_stat,
    .begin = kvfs_hybrid_begin,
    .end = kvfs_hybrid_end,
    .get = kvfs_hybrid_get,
    .cursor_open = kvfs_hybrid_cursor_open,
    .cursor_next = kvfs_hybrid_cursor_next,
    .cursor_value = kvfs_hybrid_cursor_value,
    .cursor_close = kvfs_hybrid_cursor_close,
    .apply = kvfs_hybrid_apply,
    .sync = kvfs_hybrid_sync,
    .verify = hybrid_verify,
    .compact_need_bytes = hybrid_compact_need_bytes,
    .compact = hybrid_compact,
    .backup = kvfs_hybrid_backup,
};
